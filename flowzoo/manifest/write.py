"""Changing a manifest file: one process at a time, atomically, keeping everything that the file has promised."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from flowzoo.atomic import TEMPORARY, write_text
from flowzoo.directories import exclusive
from flowzoo.errors import ManifestError
from flowzoo.manifest.read import Manifest, check_append_only, dump, parse
from flowzoo.manifest.schema import Entry

__all__ = ["check_writable", "plan_entry", "read_manifest", "update_manifest", "with_entry", "write_entry"]


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


def check_writable(path: Path) -> None:
    """Checks, before a long measurement, that a manifest can be read and replaced.

    Raises:
        ManifestError: It cannot.
    """
    read_manifest(path)
    if not os.access(path.resolve().parent, os.W_OK):
        raise ManifestError(f"{path} cannot be written to; name a manifest with --manifest.")


def with_entry(manifest: Manifest, entry: Entry) -> Manifest:
    """The manifest with ``entry`` in place of the same name and version."""
    return dataclasses.replace(
        manifest, entries=(*(old for old in manifest.entries if old.key != entry.key), entry)
    )


def plan_entry(path: Path, entry: Entry) -> str:
    """The manifest file's text with ``entry`` in it, in place of the same name and version.

    Raises:
        ManifestError: The entry is inconsistent, or takes back what the manifest has released.
    """
    before = read_manifest(path)
    text = dump(with_entry(before, entry))
    if broken := check_append_only(before, parse(text, str(path))):
        raise ManifestError(f"{path}: {broken[0]}.")
    return text


def update_manifest(path: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Replaces a manifest file by a changed one; no other process changes it in between.

    Args:
        path: The file.
        change: From the manifest as it is now to what is to be written.

    Raises:
        ManifestError: What would be written is not valid; the file is as it was.
        CheckpointError: The disk refuses; the file is as it was.
    """
    path = path.resolve()
    read_manifest(path)
    with exclusive(path.parent):
        # Everyone who writes this file holds the lock, so that whatever lies here was left by a killed process.
        for left in path.parent.glob(f"{TEMPORARY}*-{path.name[:50]}"):
            left.unlink(missing_ok=True)
        text = dump(change(read_manifest(path)))
        parse(text, str(path))
        write_text(path, text)


def write_entry(path: Path, entry: Entry) -> None:
    """Writes an entry into a manifest file, atomically.

    Raises:
        ManifestError: The entry is inconsistent, or takes back what the manifest has released.
        CheckpointError: The disk refuses; the file is as it was.
    """

    def change(before: Manifest) -> Manifest:
        after = with_entry(before, entry)
        if broken := check_append_only(before, after):
            raise ManifestError(f"{path}: {broken[0]}.")
        return after

    update_manifest(path, change)
