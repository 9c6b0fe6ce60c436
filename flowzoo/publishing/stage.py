"""The directory that becomes a repository: weights, ``flowzoo.json``, model card and sample grid."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowzoo.atomic import write_text
from flowzoo.errors import InputError, ManifestError
from flowzoo.manifest.schema import Entry, Measured
from flowzoo.manifest.typed_json import read
from flowzoo.publishing.card import SAMPLES_FILENAME, model_card
from flowzoo.publishing.describe import describe
from flowzoo.publishing.manifest_file import read_manifest
from flowzoo.weights.external import CARD_FILENAME, WEIGHTS_FILENAME, Unlisted, read_card
from flowzoo.weights.hub import HubSettings

if TYPE_CHECKING:
    from flowzoo.flow import Flow

__all__ = ["Staged", "stage_entry", "stage_run"]

_SAMPLES = 36
_SEED = 0


@dataclass(frozen=True, slots=True)
class Staged:
    """A model that is ready to be published.

    Attributes:
        entry: Its manifest entry; the revision is still null.
        directory: Holds the files, and nothing else.
    """

    entry: Entry
    directory: Path

    @property
    def filenames(self) -> tuple[str, ...]:
        """The files of the repository, by name."""
        assert self.entry.weights is not None
        return ("README.md", CARD_FILENAME, self.entry.weights.filename, SAMPLES_FILENAME)


def stage_run(
    run: Path,
    directory: Path,
    manifest: Path,
    *,
    repo_id: str,
    name: str | None = None,
    license_id: str = "Apache-2.0",
    data_root: Path | None = None,
) -> Staged:
    """Exports, fingerprints and measures a run, and writes everything that will be uploaded.

    A figure that was measured for the same file before, by an earlier call, is kept.

    Args:
        run: A training run's directory, or an exported one with ``flowzoo.json``.
        directory: Where to write; made if it is missing.
        manifest: The manifest file that the entry will go into.
        repo_id: ``"organization/name"`` on the Hub.
        name: The model's name; None for the one in ``flowzoo.json``.
        license_id: SPDX identifier of the weights' license.
        data_root: Where data sets are.

    Raises:
        FlowzooError: The run is not whole, or the data set is not to be had.
    """
    from flowzoo.weights.fingerprint import take_fingerprint
    from flowzoo.weights.load import load

    before = _clear(directory)
    card = _export(run, directory)
    known = read_manifest(manifest).entries
    flow = load(f"path:{directory}")
    entry = describe(
        card,
        known,
        name=name or card.name,
        repo_id=repo_id,
        license_id=license_id,
        num_params=sum(parameter.numel() for parameter in flow.parameters()),
    )
    assert entry.weights is not None
    (directory / card.weights.filename).rename(directory / entry.weights.filename)
    same = next((old for old in known if old.key == entry.key and old.weights), None)
    entry = dataclasses.replace(
        entry,
        fingerprint=(same.fingerprint if same else None) or take_fingerprint(flow),
        measured=same.measured if same else None,
    )
    _write_card_file(directory, entry, card.details)
    if entry.measured is None:
        entry = dataclasses.replace(
            entry, measured=_kept(before, card) or _measure(entry, directory, data_root)
        )
    return _finish(entry, directory, flow, card.details)


def stage_entry(entry: Entry, directory: Path, hub: HubSettings, *, repo_id: str) -> Staged:
    """Writes everything that will be uploaded for a model that the manifest lists already.

    Args:
        entry: The entry; its weights are on this machine and not on the Hub.
        directory: Where to write; made if it is missing.
        hub: Where local weights may be.
        repo_id: ``"organization/name"`` on the Hub.

    Raises:
        InputError: The entry has no measured figure or no fingerprint yet.
        WeightsUnavailable: The weights are not on this machine.
    """
    from flowzoo.weights.load import load
    from flowzoo.weights.resolve import locate

    if entry.weights is None or entry.measured is None or entry.fingerprint is None:
        raise InputError(
            f"{entry.key} has no measured figure or fingerprint yet; run `flowzoo eval {entry.key} --record` first."
        )
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(locate(entry, hub), directory / entry.weights.filename)
    entry = dataclasses.replace(entry, weights=dataclasses.replace(entry.weights, repo_id=repo_id))
    _write_card_file(directory, entry, {})
    return _finish(entry, directory, load(f"path:{directory}"), {})


def _export(run: Path, directory: Path) -> Unlisted:
    """Puts weights and ``flowzoo.json`` of a run into the directory."""
    if (run / "run.json").is_file():
        from flowzoo.training.export import export_weights

        export_weights(run, directory)
        return read_card(directory / CARD_FILENAME)
    card = read_card(run / CARD_FILENAME)
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / card.weights.filename, directory / WEIGHTS_FILENAME)
    card = dataclasses.replace(card, weights=dataclasses.replace(card.weights, filename=WEIGHTS_FILENAME))
    described = {"schema": 1, **_plain(card), **card.details}
    write_text(directory / CARD_FILENAME, json.dumps(described, indent=2) + "\n")
    return card


def _plain(card: Unlisted) -> dict[str, Any]:
    found = dataclasses.asdict(card)
    del found["details"]
    return found


def _clear(directory: Path) -> Unlisted | None:
    """Removes what an earlier call staged; returns its ``flowzoo.json``."""
    if not (directory / CARD_FILENAME).is_file():
        return None
    card = read_card(directory / CARD_FILENAME)
    for name in (card.weights.filename, "README.md", SAMPLES_FILENAME, CARD_FILENAME):
        (directory / name).unlink(missing_ok=True)
    return card


def _kept(before: Unlisted | None, card: Unlisted) -> Measured | None:
    """What an earlier call measured for the same bytes."""
    if before is None or before.weights.sha256 != card.weights.sha256 or not before.details.get("measured"):
        return None
    try:
        found: Measured = read(Measured, before.details["measured"], CARD_FILENAME, "$.measured")
    except ManifestError:
        return None
    return found


def _measure(entry: Entry, directory: Path, data_root: Path | None) -> Measured:
    from flowzoo.evaluation.measure import evaluate
    from flowzoo.evaluation.record import measured_of

    found = evaluate(f"path:{directory}", dataset=entry.data.id, split=entry.data.split, data_root=data_root)
    return measured_of(found, entry)


def _finish(entry: Entry, directory: Path, flow: Flow, details: Any) -> Staged:
    """Writes what needs the figures: ``flowzoo.json``, samples and model card."""
    import torch

    from flowzoo.analysis.grids import save_grid
    from flowzoo.data import get_dataset

    generator = torch.Generator().manual_seed(_SEED)
    save_grid(flow.sample(_SAMPLES, generator=generator), directory / SAMPLES_FILENAME)
    _write_card_file(directory, entry, details)
    write_text(directory / "README.md", model_card(entry, get_dataset(entry.data.id).title.rstrip(".")))
    return Staged(entry, directory)


def _write_card_file(directory: Path, entry: Entry, details: Any) -> None:
    """Writes ``flowzoo.json``: the entry, and whatever else the export said."""
    described = dataclasses.asdict(entry)
    described["weights"] |= {"repo_id": None, "revision": None}
    described |= {"schema": 1, "dataset": entry.data.id}
    text = json.dumps({**details, **described}, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(directory / CARD_FILENAME, text + "\n")
