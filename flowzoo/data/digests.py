"""Digests of files and of pixels."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from flowzoo.errors import IntegrityError

__all__ = ["check_md5", "open_content", "read_content"]


_MAX_BYTES = 1 << 28  # MNIST's largest file has 47 MB; a small archive may claim any number


def open_content(path: Path) -> BinaryIO:
    """Opens a file for reading; a file ending in ``.gz`` is gunzipped on the way."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def read_content(path: Path) -> bytes:
    """Returns a file's content, gunzipped if its name ends in ``.gz``.

    Raises:
        IntegrityError: if the compressed stream is damaged.
    """
    try:
        with open_content(path) as file:
            content = file.read(_MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IntegrityError(
            f"{path} cannot be decompressed: {error}. Expected a complete gzip file: get it again."
        ) from error
    if len(content) > _MAX_BYTES:
        raise IntegrityError(f"{path} holds more than {_MAX_BYTES} bytes, expected images of MNIST's size.")
    return content


def check_md5(path: Path, expected: str) -> None:
    """Compares a file's content (gunzipped if it ends in ``.gz``) with its official md5.

    Args:
        path: The file.
        expected: 32 hexadecimal digits.

    Raises:
        IntegrityError: if it differs.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open_content(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IntegrityError(
            f"{path} cannot be decompressed: {error}. Expected content with md5 {expected}: get the file "
            "again."
        ) from error
    if digest.hexdigest() != expected:
        raise IntegrityError(
            f"{path} is not the official file: expected md5 {expected}, found {digest.hexdigest()}. "
            "It is damaged, truncated or another release: delete it and get it again."
        )
