"""Plain values from TOML, JSON and the command line: bounded files, bounded values, ``key=value`` overrides."""

from __future__ import annotations

import math
import os
import stat
import tomllib
from typing import TYPE_CHECKING, Any

from flowzoo.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["apply_override", "check_values", "copy_values", "read_small_file"]

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_SHOWN = 100
"""Letters of an override that an error repeats."""

MAX_INTEGER = (1 << 64) - 1
"""The largest seed; TOML's own integers end at half of it."""


def read_small_file(path: Path, limit: int = MAX_FILE_BYTES) -> str:
    """Reads a regular file of UTF-8 text; never waits for a pipe's writer.

    Raises:
        OSError: It cannot be read, is a pipe or a device, or has more than ``limit`` bytes.
        UnicodeDecodeError: It is not UTF-8.
    """
    # Opening a pipe would wait for its writer, and a device may never end.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as handle:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        content = handle.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"it has more than {limit} bytes")
    return content.decode()


def check_values(tree: Any, where: str) -> None:
    """Checks that plain values are nested and sized so that reading and printing them is cheap and safe.

    Args:
        tree: Tables, lists and plain values.
        where: What is being read, for the error message.

    Raises:
        ConfigError: Tables are nested too deep, a number is not finite or has too many digits, or a text is none.
    """
    level = [(where, tree)]
    for _ in range(MAX_DEPTH):
        for place, value in level:
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                raise ConfigError(f"{place} is an integer of more than 64 bits; give a smaller one.")
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{place} is {value}; expected a finite number.")
            if isinstance(value, str) and not _is_text(value):
                raise ConfigError(
                    f"{place} is {value!a}, which is no text in UTF-8; rename the file, if it is one."
                )
        level = [(f"{place}: {key}", item) for place, value in level for key, item in _items(value)]
    if level:
        raise ConfigError(f"{where}: values are nested more than {MAX_DEPTH} deep; a recipe needs 3.")


def _is_text(value: str) -> bool:
    """Whether a file can hold it: a file's name of other bytes than UTF-8 comes with halves of surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def copy_values(value: Any) -> Any:
    """A copy of tables and lists, all the way down; tuples become lists."""
    if isinstance(value, dict):
        return {key: copy_values(item) for key, item in value.items()}
    return [copy_values(item) for item in value] if isinstance(value, list | tuple) else value


def apply_override(tree: dict[str, Any], text: str) -> None:
    """Sets one ``dotted.key=value`` in a tree of tables, in place; numbers index arrays.

    A value is read as TOML; what is not TOML is a string; ``none`` is None.

    Raises:
        ConfigError: There is no ``=``, or the key runs through something that is not a table.
    """
    key, equals, value = text.partition("=")
    parts, text = key.strip().split("."), text[:MAX_SHOWN]
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        raise ConfigError(f"override {text!r} is not key=value; write for example train.steps=2000.")
    node: Any = tree
    for part in parts[:-1]:
        node = _child(node, part, text)
    last = parts[-1]
    if isinstance(node, list):
        node[_index(node, last, text)] = _value(value, key)
    elif isinstance(node, dict):
        node[last] = _value(value, key)
    else:
        raise ConfigError(f"override {text!r}: {'.'.join(parts[:-1])} is a value, not a table.")
    if parts[0] == "train" and last in ("steps", "epochs"):
        # Steps and epochs exclude each other, so that the newer one replaces the older.
        tree["train"].pop("epochs" if last == "steps" else "steps", None)


def _child(node: Any, part: str, text: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, text)]
    if isinstance(node, dict):
        return node.setdefault(part, {})
    raise ConfigError(f"override {text!r}: {part[:MAX_SHOWN]!r} is inside a value, not a table.")


def _index(items: list[Any], part: str, text: str) -> int:
    if part.isdecimal() and len(part) < 10 and int(part) < len(items):
        return int(part)
    raise ConfigError(f"override {text!r}: {part[:MAX_SHOWN]!r} is not an index below {len(items)}.")


def _value(text: str, key: str) -> Any:
    text = text.strip()
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise ConfigError(
            f"override of {key}: the value is too long or nested too deep; give another."
        ) from error
