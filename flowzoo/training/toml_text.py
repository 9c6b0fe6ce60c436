"""A recipe as the TOML file that it could have come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def toml_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """Lines of TOML: plain values first, then tables, then arrays of tables.

    TOML has no null: what is None becomes a comment, and empty tables are left out.

    Args:
        values: JSON values.
    """
    yield from _table(values, "")


def _table(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    arrays = {key: value for key, value in values.items() if _is_tables(value)}
    yield from _pairs({key: value for key, value in values.items() if key not in tables | arrays})
    for key, table in tables.items():
        if table:
            yield from ("", f"[{prefix}{key}]", *_table(table, f"{prefix}{key}."))
    for key, array in arrays.items():
        for table in array:
            yield from ("", f"[[{prefix}{key}]]", *_table(table, f"{prefix}{key}."))


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        # JSON's strings, numbers, booleans and lists are written as TOML's are.
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        yield f"# {key} is not set" if value is None else f"{key} = {text}"
