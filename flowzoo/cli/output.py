"""The one output sink: results to stdout, everything said about them to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

__all__ = ["fields", "json_option", "note", "print_json", "print_line", "table"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
"""The ``--json`` flag that every command with a result has; its value is the argument ``as_json``."""


def print_line(text: str = "") -> None:
    """Writes one line of the result to stdout."""
    click.echo(text)


def print_json(value: Any) -> None:
    """Writes the result to stdout as JSON, keys in the order given. NaN and infinity are refused."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def note(text: str) -> None:
    """Says something about the result, on stderr."""
    click.echo(text, err=True)


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
        click.echo("  ".join(padded).rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Writes names and values to stdout, one a line, values aligned; pairs with None are left out."""
    shown = [(name, _cell(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        first, *rest = text.splitlines() or [""]
        click.echo(f"{name.ljust(width)}  {first}".rstrip())
        for line in rest:
            click.echo(f"{'':{width}}  {line}".rstrip())


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
