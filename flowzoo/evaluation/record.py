"""Writing a measurement into the manifest: the only way that ``measured`` comes to be."""

from __future__ import annotations

import dataclasses
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flowzoo.data.portable import is_own, portable_id
from flowzoo.errors import ManifestError
from flowzoo.evaluation.verdict import TOLERANCE
from flowzoo.manifest.read import Manifest, core_manifest_path
from flowzoo.manifest.schema import Entry, Fingerprint, Measured
from flowzoo.manifest.write import update_manifest, with_entry

if TYPE_CHECKING:
    from pathlib import Path

    from flowzoo.evaluation.measure import Evaluation


def measured_of(evaluation: Evaluation, entry: Entry) -> Measured:
    """A measurement in the manifest's form."""
    protocol = evaluation.protocol
    # One's own images are named without their directory, so that whoever has them says where they are.
    where = f" --data {shlex.quote(portable_id(entry.data.id))}" if is_own(entry.data.id) else ""
    command = f"flowzoo eval {entry.name}@{entry.version}{where}"
    audit = evaluation.reconstruction
    bits = evaluation.unit == "bits/dim"
    return Measured(
        bpd=evaluation.bpd if bits else None,
        nats=None if bits else evaluation.nats,
        stderr=evaluation.stderr if bits else evaluation.nats_stderr,
        dequantization=evaluation.dequantization,
        samples=protocol.samples,
        probes=protocol.probes,
        seed=protocol.seed,
        dtype=protocol.dtype,
        num_images=evaluation.num_images,
        tolerance=TOLERANCE,
        versions=evaluation.versions,
        command=command,
        reconstruction_exact=audit.exact if audit else None,
        seconds=round(evaluation.seconds, 1),
        hardware=evaluation.hardware,
        date=datetime.now(UTC).date().isoformat(),
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
    same = portable_id(evaluation.dataset) == portable_id(entry.data.id)
    if evaluation.partial or not same or evaluation.split != entry.data.split:
        raise ManifestError(
            f"{entry.key}: only a measurement over the whole {entry.data.split} split of {entry.data.id} is "
            "recorded; leave out --limit, --data and --split."
        )
    path = path or core_manifest_path()
    measured = measured_of(evaluation, entry)

    def change(manifest: Manifest) -> Manifest:
        old = next((old for old in manifest.entries if old.key == entry.key), None)
        if old is None:
            raise ManifestError(f"{path} does not list {entry.key}; add the entry first, then record.")
        renewed = dataclasses.replace(old, measured=measured, fingerprint=old.fingerprint or fingerprint)
        return with_entry(manifest, renewed)

    update_manifest(path, change)
    return path
