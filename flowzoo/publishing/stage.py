"""The directory that becomes a repository: weights, ``flowzoo.json``, recipes, model card and sample grid."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from flowzoo.atomic import TEMPORARY, write_text
from flowzoo.config import config_to_dict
from flowzoo.data.portable import is_own
from flowzoo.directories import replaced_directory
from flowzoo.errors import InputError, ManifestError
from flowzoo.evaluation.sampling import check_shippable, count_finite
from flowzoo.manifest.schema import Entry
from flowzoo.manifest.typed_json import read
from flowzoo.manifest.write import read_manifest
from flowzoo.publishing.card import CURVE_FILENAME, SAMPLES_FILENAME, model_card, repository
from flowzoo.publishing.describe import check_held_out, describe, measured_images, training_stages
from flowzoo.publishing.figures import measure_model, run_dataset
from flowzoo.publishing.points_picture import save_points
from flowzoo.training.provenance import recipe_files
from flowzoo.weights.external import CARD_FILENAME, CONFIG_FILENAME, WEIGHTS_FILENAME, Unlisted, read_card
from flowzoo.weights.hub import HubSettings

if TYPE_CHECKING:
    from flowzoo.flow import Flow

__all__ = ["Staged", "stage_entry", "stage_run"]

_FIGURES = (
    "measured", "one_sample_bpd", "fingerprint", "sampling", "kind", "inverse_kind", "density_passes",
    "sampling_passes", "valid_bpd", "labels", "compressed", "uniform_noise", "several_samples",
)  # fmt: skip
"""The fields of an entry that are measured, or that the flow says of itself when it is."""

_SAMPLES, _POINTS = 36, 8192
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
    def recipes(self) -> tuple[str, ...]:
        """The recipe files that lie beside the weights, by name."""
        assert self.entry.weights is not None
        stem = self.entry.weights.filename.removesuffix(".safetensors")
        return tuple(sorted(path.name for path in self.directory.glob(f"{stem}.recipe*.toml")))

    @property
    def filenames(self) -> tuple[str, ...]:
        """The files of the repository, by name."""
        assert self.entry.weights is not None
        curve = [CURVE_FILENAME] if (self.directory / CURVE_FILENAME).is_file() else []
        pictures = (SAMPLES_FILENAME, *curve)
        return (
            "README.md", CARD_FILENAME, CONFIG_FILENAME, self.entry.weights.filename, *pictures, *self.recipes,
        )  # fmt: skip


def stage_run(
    run: Path,
    directory: Path,
    manifest: Path | None,
    *,
    repo_id: str | None,
    name: str | None = None,
    license_id: str = "Apache-2.0",
    dtype: Any = None,
    note: str | None = None,
    samples: int | None = None,
    temperature: float | None = None,
    dataset: str | None = None,
    data_root: Path | None = None,
) -> Staged:
    """Exports, fingerprints and measures a run, and writes everything that will be uploaded.

    The directory changes as a whole: killed in between, it is as it was. Figures that were measured for the same file
    before, by an earlier call, are kept.

    Args:
        run: A training run's directory, or an exported one with ``flowzoo.json``.
        directory: Where to write: missing, empty, or an earlier stage of this model.
        manifest: The manifest file that the entry will go into; None for a model that no manifest lists, and that is
            loaded by its repository and commit.
        repo_id: ``"organization/name"`` on the Hub; None if it is not decided.
        name: The model's name; None for the one in ``flowzoo.json``.
        license_id: SPDX identifier of the weights' license.
        dtype: How a run's floating-point tensors are stored; None for float32.
        note: What a user should know before using it; None keeps the note of the entry that this one renews.
        samples: Noise samples an image of the measured figure; None for 1.
        temperature: Recommended factor on the latents, of the card's samples too; None for 1.
        dataset: Id of the data set on this machine; None for the run's.
        data_root: Where data sets are.

    Raises:
        InputError: The directory holds something else, or the model was chosen on its test split.
        IntegrityError: Some of the model's samples are not finite.
        FlowzooError: The run is not whole, or the data set is not to be had.
    """
    from flowzoo.training.export import check_name
    from flowzoo.weights.load import load

    known = () if manifest is None else read_manifest(manifest).entries
    source = check_name(name or _name_of(run))
    if directory.resolve() == run.resolve():
        raise InputError(f"--stage {directory} is what is published; name another directory.")
    before = _earlier(directory)
    with _taken(directory, source) as new:
        card = _export(run, new, source, dtype)
        check_held_out(card)
        here = dataset or run_dataset(run)
        flow = load(f"path:{new}")
        entry = describe(
            card,
            known,
            name=source,
            repo_id=repo_id,
            license_id=license_id,
            num_params=sum(parameter.numel() for parameter in flow.parameters()),
            data=measured_images(card, here, data_root),
            note=note,
        )
        entry = dataclasses.replace(entry, recommended_temperature=temperature)
        entry = _with_kept_figures(entry, known, before, samples)
        if entry.measured is None:
            entry = measure_model(
                new, flow, entry.data, samples=samples or 1, dataset=here, data_root=data_root
            ).of(entry)
        if manifest is None:
            entry = _unlisted(entry)
        assert entry.weights is not None
        (new / card.weights.filename).rename(new / entry.weights.filename)
        stem = entry.weights.filename.removesuffix(".safetensors")
        for recipe in new.glob("recipe*.toml"):
            recipe.unlink()
        for file, text in recipe_files(training_stages(card), stem).items():
            write_text(new / file, text)
        return _finish(entry, new, directory, flow, card.details, listed=manifest is not None)


def stage_entry(entry: Entry, directory: Path, hub: HubSettings, *, repo_id: str) -> Staged:
    """Writes everything that will be uploaded for a model that the manifest lists already.

    Args:
        entry: The entry; its weights are on this machine and not on the Hub.
        directory: Where to write: missing, empty, or an earlier stage of this model.
        hub: Where local weights may be.
        repo_id: ``"organization/name"`` on the Hub.

    Raises:
        InputError: The entry has no measured figure or no fingerprint yet, or the directory holds something else.
        IntegrityError: Some of the model's samples are not finite.
        WeightsUnavailable: The weights are not on this machine.
    """
    from flowzoo.weights.load import load
    from flowzoo.weights.resolve import locate

    if entry.weights is None or entry.measured is None or entry.fingerprint is None:
        raise InputError(
            f"{entry.key} has no measured figure or fingerprint yet; run `flowzoo publish {entry.key} --record` first."
        )
    with _taken(directory, entry.name) as new:
        source = locate(entry, hub)
        shutil.copyfile(source, new / entry.weights.filename)
        for recipe in source.parent.glob(f"{source.stem}.recipe*.toml"):
            shutil.copyfile(recipe, new / recipe.name)
        _copy_curve(_curve_in_checkout(source, entry.name), new)
        entry = dataclasses.replace(entry, weights=dataclasses.replace(entry.weights, repo_id=repo_id))
        _write_card_file(new, entry, {})
        flow = load(f"path:{new}")
        entry = dataclasses.replace(entry, sampling=entry.sampling or count_finite(flow))
        check_shippable(entry.key, entry.sampling)
        return _finish(entry, new, directory, flow, {})


def _unlisted(entry: Entry) -> Entry:
    """The entry with a command that measures it again without a manifest."""
    assert entry.measured is not None
    command = entry.measured.command.replace(entry.key, repository(entry), 1)
    return dataclasses.replace(entry, measured=dataclasses.replace(entry.measured, command=command))


def _name_of(run: Path) -> str:
    """The name that a run or an export gives its model."""
    if (run / "run.json").is_file():
        from flowzoo.training.export import run_weights
        from flowzoo.weights.checkpoint import read_metadata

        return str(read_metadata(run_weights(run)).get("name", ""))
    return read_card(run / CARD_FILENAME).name


def _taken(directory: Path, name: str) -> AbstractContextManager[Path]:
    def ours(path: Path) -> bool:
        card = _earlier(path)
        names = {file.name for file in path.iterdir() if not file.name.startswith(TEMPORARY)}
        strange = [
            file
            for file in names
            - {"README.md", CARD_FILENAME, CONFIG_FILENAME, SAMPLES_FILENAME, CURVE_FILENAME}
            if not (file.startswith(name) and file.endswith((".safetensors", ".toml")))
        ]
        return card is not None and card.name == name and not strange

    return replaced_directory(directory, ours, f"an earlier stage of {name}")


def _earlier(directory: Path) -> Unlisted | None:
    """The ``flowzoo.json`` of an earlier stage; an export's, which says nothing of a release, is none."""
    if not (directory / CARD_FILENAME).is_file():
        return None
    try:
        card = read_card(directory / CARD_FILENAME)
    except (InputError, ManifestError, ValueError):
        return None
    return card if {"status", "version"} <= set(card.details) else None


def _export(run: Path, directory: Path, name: str, dtype: Any) -> Unlisted:
    """Puts weights and ``flowzoo.json`` of a run into the directory."""
    if (run / "run.json").is_file():
        from flowzoo.training.export import run_weights, write_export
        from flowzoo.training.run_dir import RunDir
        from flowzoo.weights.checkpoint import read_metadata

        source = run_weights(run)
        write_export(run, directory, source, read_metadata(source), name=name, dtype=dtype)
        _copy_curve(RunDir(run).curve, directory)
        return read_card(directory / CARD_FILENAME)
    if dtype is not None:
        raise InputError(
            f"{run} is an export, whose weights are published as they are stored; leave out --dtype."
        )
    card = read_card(run / CARD_FILENAME)
    shutil.copyfile(run / card.weights.filename, directory / WEIGHTS_FILENAME)
    _copy_curve(run / CURVE_FILENAME, directory)
    card = dataclasses.replace(card, weights=dataclasses.replace(card.weights, filename=WEIGHTS_FILENAME))
    described = {"schema": 1, **_plain(card), **card.details}
    write_text(directory / CARD_FILENAME, json.dumps(described, indent=2) + "\n")
    return card


def _copy_curve(picture: Path, directory: Path) -> None:
    """Takes a picture of the training curve along, where there is one."""
    if picture.is_file():
        shutil.copyfile(picture, directory / CURVE_FILENAME)


def _curve_in_checkout(weights: Path, name: str) -> Path:
    """The curve that the documentation of the weights' checkout shows; it need not exist."""
    roots = [folder for folder in weights.resolve().parents if (folder / "weights_manifest.json").is_file()]
    return (roots[-1] if roots else weights.parent) / "docs" / "images" / f"{name}-curve.png"


def _plain(card: Unlisted) -> dict[str, Any]:
    found = dataclasses.asdict(card)
    del found["details"]
    return found


def _with_kept_figures(
    entry: Entry, known: tuple[Entry, ...], before: Unlisted | None, samples: int | None
) -> Entry:
    """The entry with figures of the same bytes: those of the manifest, else those of an earlier stage."""
    same = next((old for old in known if old.key == entry.key and old.weights), None)
    if same is not None and same.measured is not None:
        temperature = entry.recommended_temperature or same.recommended_temperature
        kept_fields = {name: getattr(same, name) for name in _FIGURES}
        return dataclasses.replace(entry, **kept_fields, recommended_temperature=temperature)
    assert entry.weights is not None
    if before is None or before.weights.sha256 != entry.weights.sha256:
        return entry
    details, hints = before.details, get_type_hints(Entry, include_extras=True)
    try:
        found = {
            name: read(hints[name], details[name], CARD_FILENAME, f"$.{name}")
            for name in _FIGURES
            if details.get(name) is not None
        }
    except ManifestError:
        return entry
    kept: Entry = dataclasses.replace(entry, **found)
    if kept.measured is None or kept.fingerprint is None:
        return entry
    return kept if samples in (None, kept.measured.samples) else entry


def _finish(
    entry: Entry, new: Path, directory: Path, flow: Flow, details: Mapping[str, Any], *, listed: bool = True
) -> Staged:
    """Writes what needs the figures: ``flowzoo.json``, samples and model card."""
    import torch

    from flowzoo.analysis.grids import save_grid
    from flowzoo.data import get_dataset

    generator = torch.Generator().manual_seed(_SEED)
    temperature = entry.recommended_temperature or 1.0
    if flow.data_kind == "images":
        images = flow.sample(_SAMPLES, temperature=temperature, generator=generator)
        save_grid(images, new / SAMPLES_FILENAME, temperature=temperature)
    else:
        points = flow.sample(_POINTS, temperature=temperature, generator=generator, batch_size=1024)
        save_points(points, new / SAMPLES_FILENAME, temperature=temperature)
    _write_card_file(new, entry, details)
    title = _own_title(entry) if is_own(entry.data.id) else get_dataset(entry.data.id).title.rstrip(".")
    # The Hub counts downloads by the requests for this file, which loading makes.
    described = {
        "library_name": "flowzoo",
        "architecture": entry.architecture,
        "config_hash": entry.config_hash,
    }
    write_text(new / CONFIG_FILENAME, json.dumps(described | {"config": dict(entry.config)}, indent=2) + "\n")
    curve = (new / CURVE_FILENAME).is_file()
    write_text(new / "README.md", model_card(entry, title, listed=listed, curve=curve))
    return Staged(entry, directory)


def _own_title(entry: Entry) -> str:
    """The name of one's own data in words: what they are, without the directory that they lie in."""
    kind, _, rest = entry.data.id.partition(":")
    what = {"folder": "the author's own images", "numpy": "the author's own array"}.get(
        kind, "the author's own data"
    )
    return f"{what} ({rest.partition('?')[0]})"


def _write_card_file(directory: Path, entry: Entry, details: Mapping[str, Any]) -> None:
    """Writes ``flowzoo.json``: the entry, and whatever else the export said."""
    described = config_to_dict(entry)
    described["weights"] |= {"repo_id": None, "revision": None}
    described |= {"schema": 1, "dataset": entry.data.id}
    # The entry's account of the training is shorter; the stages stay.
    training = details.get("training")
    if isinstance(training, dict) and isinstance(described.get("training"), dict):
        described["training"] = training | described["training"]
    # A field of the entry that is at its default is left out, and nothing of its name may stand in for it.
    kept = {key: value for key, value in details.items() if not hasattr(entry, key)}
    text = json.dumps({**kept, **described}, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(directory / CARD_FILENAME, text + "\n")
