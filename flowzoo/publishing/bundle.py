"""Shipping a run's weights inside the plugin that builds it, with the manifest entry that says so."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flowzoo.atomic import write_chunks, write_text
from flowzoo.errors import InputError, PluginError
from flowzoo.manifest.read import dump
from flowzoo.manifest.schema import Entry
from flowzoo.publishing.describe import describe
from flowzoo.publishing.manifest_file import read_manifest
from flowzoo.weights.external import CARD_FILENAME, read_card
from flowzoo.weights.resolve import package_directory

if TYPE_CHECKING:
    import torch

__all__ = ["bundle_run"]


def bundle_run(
    run: Path,
    manifest: Path,
    *,
    name: str | None = None,
    license_id: str = "Apache-2.0",
    dtype: torch.dtype | None = None,
    note: str | None = None,
    samples: int | None = None,
    data_root: Path | None = None,
) -> Entry:
    """Exports, measures and fingerprints a run's best weights and puts them into its plugin's package.

    An entry of that name whose weights were never on the Hub is replaced, and its file removed: what nobody can have
    fetched is no promise yet. Otherwise the model gets a new version.

    Args:
        run: The training run's directory.
        manifest: The manifest file that the entry goes into.
        name: The model's name; None for the recipe's.
        license_id: SPDX identifier of the weights' license.
        dtype: How floating-point tensors are stored; None for float32.
        note: What a user should know before using it; None keeps the note of the entry that is replaced.
        samples: Noise samples an image of the measured figure; None for those of the entry that is replaced, else 1.
        data_root: Where data sets are.

    Returns:
        The entry as it was written.

    Raises:
        PluginError: The plugin is not installed from a checkout that can be written to.
        FlowzooError: The run is not whole, or the data set is not to be had.
    """
    from flowzoo.evaluation.measure import evaluate
    from flowzoo.evaluation.record import measured_of
    from flowzoo.training.export import export_weights
    from flowzoo.weights.fingerprint import take_fingerprint
    from flowzoo.weights.load import load

    known = read_manifest(manifest).entries
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        weights_path = export_weights(run, stage, dtype=dtype)
        card = read_card(stage / CARD_FILENAME)
        name = name or card.name
        replaced = _replaceable(known, name)
        flow = load(f"path:{stage}")
        entry = describe(
            card,
            [old for old in known if old is not replaced],
            name=name,
            repo_id=f"flowzoo/{name}",
            license_id=license_id,
            num_params=sum(parameter.numel() for parameter in flow.parameters()),
            note=note or (replaced.note if replaced is not None else None),
        )
        if replaced is not None:
            entry = dataclasses.replace(entry, version=replaced.version)
        before = replaced.measured if replaced is not None else None
        found = evaluate(
            f"path:{stage}",
            samples=samples or (before.samples if before is not None else 1),
            dataset=entry.data.id,
            split=entry.data.split,
            data_root=data_root,
        )
        entry = dataclasses.replace(
            entry, fingerprint=take_fingerprint(flow), measured=measured_of(found, entry)
        )
        _install(entry, weights_path, replaced)
    others = [old for old in known if old is not replaced and old.key != entry.key]
    write_text(manifest, dump(dataclasses.replace(read_manifest(manifest), entries=(*others, entry))))
    return entry


def _replaceable(known: tuple[Entry, ...], name: str) -> Entry | None:
    """The newest entry of this name, if its weights were never on the Hub."""
    entries = [entry for entry in known if entry.name == name]
    newest = max(entries, key=lambda entry: entry.version, default=None)
    if newest is None or (newest.weights is not None and newest.weights.revision is not None):
        return None
    return newest


def _install(entry: Entry, source: Path, replaced: Entry | None) -> None:
    """Copies the weights into the package and removes the file that they replace."""
    package = package_directory(entry.architecture)
    if package is None or not (package.parent / "pyproject.toml").is_file():
        raise PluginError(
            f"{entry.name} can only be bundled from a checkout: the plugin for {entry.architecture} is at {package}. "
            "Install it from the repository with `pip install -e`."
        )
    if entry.weights is None:
        raise InputError(f"{entry.name} has no weights to bundle.")
    target = package / "weights" / entry.weights.filename
    target.parent.mkdir(exist_ok=True)
    write_chunks(target, [source.read_bytes()])
    old = replaced.weights.filename if replaced is not None and replaced.weights is not None else None
    if old is not None and old != target.name:
        (package / "weights" / old).unlink(missing_ok=True)
