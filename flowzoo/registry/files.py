"""Reads a small text file that somebody else wrote, whatever it turns out to be."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

__all__ = ["check_characters", "read_small_text"]


def read_small_text(path: str, limit: int) -> str:
    """The content of a regular file in UTF-8.

    Args:
        path: The file. A pipe, a device or a socket is refused at once: reading one may never end.
        limit: The most bytes that are read.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: It is no regular file, larger than ``limit``, or not UTF-8.
    """
    # Opening a pipe waits for its other end unless told not to.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(f"{path} is a directory")
        if not stat.S_ISREG(kind):
            raise ValueError("it is a pipe, a device or a socket, not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    return content.decode("utf-8")


def check_characters(text: str, value: Any) -> None:
    r"""Refuses JSON with half of a surrogate pair, as ``"\ud800"``: no file and no terminal takes that as text.

    Args:
        text: The JSON text.
        value: What ``json`` made of it.

    Raises:
        ValueError: There is one.
    """
    if "\\ud" not in text.lower():
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds half of a surrogate pair, which is no character") from error
