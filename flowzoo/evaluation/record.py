"""Writing a measurement into the manifest: the only way that ``measured`` comes to be."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from flowzoo.atomic import write_text
from flowzoo.errors import ManifestError
from flowzoo.evaluation.verdict import TOLERANCE
from flowzoo.manifest.read import core_manifest_path, dump, parse
from flowzoo.manifest.schema import Entry, Fingerprint, Measured

if TYPE_CHECKING:
    from pathlib import Path

    from flowzoo.evaluation.measure import Evaluation


def measured_of(evaluation: Evaluation, entry: Entry) -> Measured:
    """A measurement in the manifest's form."""
    protocol = evaluation.protocol
    command = f"flowzoo eval {entry.name}@{entry.version}"
    audit = evaluation.reconstruction
    return Measured(
        bpd=evaluation.bpd,
        stderr=evaluation.stderr,
        dequantization=evaluation.dequantization,
        samples=protocol.samples,
        seed=protocol.seed,
        dtype=protocol.dtype,
        num_images=evaluation.num_images,
        tolerance=TOLERANCE,
        versions=evaluation.versions,
        command=command,
        reconstruction_exact=audit.exact if audit else None,
        seconds=round(evaluation.seconds, 1),
        hardware=evaluation.hardware,
    )


def record(
    evaluation: Evaluation, entry: Entry, fingerprint: Fingerprint | None = None, path: Path | None = None
) -> Path:
    """Writes a measurement into the manifest file that lists the entry.

    Args:
        evaluation: A measurement over the whole split.
        entry: The entry it is of.
        fingerprint: Written as well, if the entry has none.
        path: The manifest; None for core's.

    Returns:
        The file.

    Raises:
        ManifestError: The measurement is partial, or the file does not list the entry.
    """
    if evaluation.partial or evaluation.dataset != entry.data.id or evaluation.split != entry.data.split:
        raise ManifestError(
            f"{entry.key}: only a measurement over the whole {entry.data.split} split of {entry.data.id} is "
            "recorded; leave out --limit, --data and --split."
        )
    path = path or core_manifest_path()
    manifest = parse(path.read_text(encoding="utf-8"), str(path))
    if all(old.key != entry.key for old in manifest.entries):
        raise ManifestError(f"{path} does not list {entry.key}; add the entry first, then record.")
    measured = measured_of(evaluation, entry)
    entries = tuple(
        dataclasses.replace(old, measured=measured, fingerprint=old.fingerprint or fingerprint)
        if old.key == entry.key
        else old
        for old in manifest.entries
    )
    text = dump(dataclasses.replace(manifest, entries=entries))
    parse(text, str(path))
    write_text(path, text)
    return path
