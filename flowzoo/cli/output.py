"""The one output sink: results to stdout, everything said about them to stderr."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click

__all__ = [
    "fields",
    "json_option",
    "note",
    "prepare_streams",
    "print_json",
    "print_line",
    "settle_streams",
    "silence",
    "table",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
"""The ``--json`` flag that every command with a result has; its value is the argument ``as_json``."""


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that steer a terminal, turn the direction of writing or are half of a pair, which no encoding has."""


def printable(text: str) -> str:
    r"""The text with every character that is not for reading as its escape, such as ``\u001b``.

    Names, cards and answers of servers are written by others. The escapes are those of JSON, so JSON stays the same.
    """
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def prepare_streams() -> None:
    """Makes the standard streams usable whatever they are: closed, or of an encoding that lacks letters.

    A closed one reads or writes nothing from now on; open, it would be the next file that is opened. A letter that
    the encoding lacks is written as its escape.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY), encoding="utf-8")
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            null = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(null, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """Turns a stream that cannot be written to the null device, so that nothing fails on it again."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def settle_streams() -> None:
    """Flushes the standard streams; rests that cannot be written would end the process with a code of their own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            silence(stream)


def print_line(text: str = "") -> None:
    """Writes one line of the result to stdout.

    Raises:
        OSError: Nothing can be written there; it names standard output.
    """
    try:
        click.echo(printable(text))
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)
        raise OSError(error.errno, error.strerror, "standard output") from error


def print_json(value: Any) -> None:
    """Writes the result to stdout as JSON, keys in the order given. NaN and infinity are refused."""
    unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    print_line(json.dumps(value, indent=2, ensure_ascii=not unicode, allow_nan=False))


def note(text: str) -> None:
    """Says something about the result, on stderr; where that cannot be written, nobody listens."""
    try:
        click.echo(printable(text), err=True)
    except (OSError, ValueError):
        silence(sys.stderr)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> None:
    """Writes aligned columns to stdout, never shortened; None is shown as ``-``.

    Args:
        headers: The columns' names.
        rows: Cells in the headers' order.
        right: Names of the columns that are aligned to the right (numbers).
    """
    cells = [[" ".join(_cell(value).splitlines()) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    flush_right = set(right)
    for line in [[name.upper() for name in headers], *cells]:
        padded = [
            text.rjust(width) if header in flush_right else text.ljust(width)
            for header, text, width in zip(headers, line, widths, strict=True)
        ]
        print_line("  ".join(padded).rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Writes names and values to stdout, one a line, values aligned; pairs with None are left out."""
    shown = [(name, _cell(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        first, *rest = text.splitlines() or [""]
        print_line(f"{name.ljust(width)}  {first}".rstrip())
        for line in rest:
            print_line(f"{'':{width}}  {line}".rstrip())


def _cell(value: object) -> str:
    return "-" if value is None else printable(str(value))
