"""Manifests as text and JSON, before anything in them is judged: what listing models needs of them.

:mod:`flowzoo.manifest` reads them strictly.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from flowzoo.errors import ManifestError
from flowzoo.registry.files import check_characters, read_small_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CORE", "SCHEMA", "core_manifest", "core_manifest_path", "core_text", "load_json", "precedence"]

SCHEMA = 1
"""The version of the manifest's schema that this flowzoo reads and writes."""

FILENAME = "weights_manifest.json"
CORE = f"flowzoo ({FILENAME})"
"""The name of core's manifest in messages."""


MAX_BYTES = 256 * 2**20
"""Of a manifest: some 100,000 entries."""

_MAX_DEPTH = 32
_TOO_DEEP = f"nested too deeply to be a manifest: more than {_MAX_DEPTH} levels"


def core_manifest() -> str:
    """The path of core's manifest: inside the package when installed, at the root of a checkout otherwise."""
    package = os.path.dirname(os.path.dirname(__file__))
    bundled = os.path.join(package, FILENAME)
    return bundled if os.path.exists(bundled) else os.path.join(os.path.dirname(package), FILENAME)


def core_manifest_path() -> Path:
    """:func:`core_manifest` for those who can wait for :mod:`pathlib`."""
    from pathlib import Path

    return Path(core_manifest())


def core_text() -> str:
    """The content of core's manifest.

    Raises:
        ManifestError: It is missing or cannot be read.
    """
    path = core_manifest()
    try:
        return read_small_text(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise ManifestError(f"{path} cannot be read: {cause}. Reinstall flowzoo.") from error


def load_json(text: str, where: str) -> Any:
    """Parses a manifest's JSON, refusing what JSON does not define: NaN, infinity, a key given twice.

    Integers have at most 20 digits, and nothing is nested deeper than configs are.

    Raises:
        ManifestError: It is not such JSON, or written in a schema of the future.
    """
    try:
        data = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_short_integer
        )
        _check_depth(data)
        check_characters(text, data)
    except RecursionError:
        raise ManifestError(f"{where}: {_TOO_DEEP}.") from None
    except ValueError as error:
        raise ManifestError(f"{where}: not valid JSON: {error}.") from error
    version = data.get("schema") if isinstance(data, dict) else None
    if type(version) is int and version > SCHEMA:
        raise ManifestError(
            f"{where}: written in schema {version}; this flowzoo reads {SCHEMA}. "
            "Run: pip install --upgrade flowzoo"
        )
    return data


def precedence(status: str, version: int) -> tuple[int, int]:
    """The order of a model's versions: the bare name stands for the greatest.

    That is the newest released version; if none is released, the newest deprecated one; if there is none
    either, the newest unpublished.
    """
    return ("unpublished", "deprecated", "released").index(status), version


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice in one object")
        found[key] = value
    return found


def _check_depth(data: Any) -> None:
    """Raises RecursionError for what a function that calls itself may be too deep for."""
    level = [data]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise RecursionError


def _short_integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"an integer of {len(digits):,} digits")
    return int(digits)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
