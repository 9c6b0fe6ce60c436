"""Weights manifests: the schema of an entry, the strict parser, and the merged view of all manifests."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowzoo.manifest.read import *  # noqa: F403

_NAMES = (
    "SCHEMA", "Data", "Entry", "Fingerprint", "Manifest", "Measured", "Published", "Reference", "Training", "Weights",
    "check_append_only", "core_manifest_path", "dump", "list_models", "load_manifests", "merge", "parse", "schema",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    # Listing models needs the raw text alone; the parser takes longer to import than the list to print.
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("flowzoo.manifest.read"), name)
