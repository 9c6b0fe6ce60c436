"""Reading files and JSON that somebody else made: regular files only, and nothing deep, endless or enormous."""

from __future__ import annotations

import io
import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowzoo.registry.files import check_characters

__all__ = ["NotRegular", "open_regular", "parse_json", "shown"]

_MAX_DEPTH = 32
_MAX_DIGITS = 20


class NotRegular(OSError):
    """A pipe, a device, a socket or a directory stands where a file was expected."""


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a file for reading, unless opening or reading it could wait for ever.

    Raises:
        NotRegular: It is no regular file.
        OSError: It cannot be opened.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def parse_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Parses JSON in which nothing is nested deep and no number is beyond what a machine holds.

    Args:
        text: The JSON text; bytes are UTF-8.
        pairs: Makes an object of its members; None makes a dict.

    Raises:
        ValueError: It is not JSON, or not of this kind.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # json itself lets halves of surrogate pairs through
    try:
        value = json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_number, object_pairs_hook=pairs
        )
    except RecursionError:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} deep") from None
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            check_characters(text, value)
            return value
    raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")


def shown(value: object) -> str:
    """A value as an error message shows it: on one line and not for pages."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text[:20]}, which is no finite number")
    return value
