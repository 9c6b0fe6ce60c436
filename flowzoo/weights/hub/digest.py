"""Comparing a local file, byte for byte, with the file that was promised."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from flowzoo.errors import IntegrityError
from flowzoo.weights.plain_files import NotRegular, open_regular

__all__ = ["FileId", "check_file", "problem_with"]


@dataclass(frozen=True, slots=True)
class FileId:
    """The size and digest that make a file this file.

    Attributes:
        sha256: SHA-256 of its content, 64 lower-case hex digits.
        size: Length in bytes.
    """

    sha256: str
    size: int


def problem_with(path: Path, expected: FileId) -> str | None:
    """Says how a file differs from what is expected, or None if it is the expected file.

    The size is compared before a byte is read, so that neither a device nor an endless file is hashed.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        file = open_regular(path)
    except NotRegular:
        return f"expected a file of {expected.size} bytes, found something that is not a regular file"
    with file:
        size = os.fstat(file.fileno()).st_size
        if size != expected.size:
            return f"expected {expected.size} bytes, found {size} bytes"
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.sha256:
        return f"expected sha256 {expected.sha256}, found sha256 {found}"
    return None


def check_file(path: Path, expected: FileId, mend: str) -> Path:
    """Returns ``path`` if it is the expected file.

    Args:
        path: A local file.
        expected: Its size and digest.
        mend: What to do if it is not, as the end of a sentence.

    Raises:
        IntegrityError: It is not; the message gives path, expected and found.
    """
    try:
        problem = problem_with(path, expected)
    except OSError as error:
        problem = (
            f"expected {expected.size} bytes, found a file that cannot be read ({error.strerror or error})"
        )
    if problem:
        raise IntegrityError(f"{path}: {problem}; {mend}.")
    return path
