"""Writing an entry into a manifest file, keeping everything that the file has promised."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from flowzoo.atomic import write_text
from flowzoo.errors import ManifestError
from flowzoo.manifest.read import Manifest, check_append_only, dump, parse
from flowzoo.manifest.schema import Entry

__all__ = ["plan_entry", "read_manifest", "write_entry"]


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest file.

    Raises:
        ManifestError: It cannot be read or is not valid.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ManifestError(
            f"{path} cannot be read ({error.strerror}); name a manifest with --manifest."
        ) from error


def plan_entry(path: Path, entry: Entry) -> str:
    """The manifest file's text with ``entry`` in it, in place of the same name and version.

    Raises:
        ManifestError: The entry is inconsistent, or takes back what the manifest has released.
    """
    before = read_manifest(path)
    entries = (*(old for old in before.entries if old.key != entry.key), entry)
    after = dataclasses.replace(before, entries=entries)
    text = dump(after)
    parsed = parse(text, str(path))
    if broken := check_append_only(before, parsed):
        raise ManifestError(f"{path}: {broken[0]}.")
    return text


def write_entry(path: Path, entry: Entry) -> None:
    """Writes an entry into a manifest file, atomically.

    Raises:
        ManifestError: The entry is inconsistent, or takes back what the manifest has released.
        CheckpointError: The disk refuses; the file is as it was.
    """
    write_text(path, plan_entry(path, entry))
