"""The manifest entry of a run, from its ``flowzoo.json`` and from what installed code knows about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flowzoo.api import Architecture, Preset
from flowzoo.config import config_to_dict, parse_config
from flowzoo.data.portable import holds_all_in_every_split, is_own, is_split_by_content, portable_id
from flowzoo.errors import InputError
from flowzoo.manifest.schema import Data, Entry, Training, Weights
from flowzoo.registry import config_class, get_architecture
from flowzoo.training.provenance import commands, recipe_files

if TYPE_CHECKING:
    from pathlib import Path

    from flowzoo.weights.external import Unlisted

__all__ = ["check_held_out", "describe", "measured_images", "training_stages", "version_for"]

NO_FIGURE = "no paper gives a figure for exactly this configuration"
NONE_NAMED = "its plugin names no published figure for this configuration"


def describe(
    card: Unlisted,
    known: Iterable[Entry],
    *,
    name: str,
    repo_id: str | None,
    license_id: str,
    num_params: int,
    data: Data,
    note: str | None = None,
    filename: str | None = None,
) -> Entry:
    """Drafts the manifest entry of exported weights, without figures yet.

    Args:
        card: The export's ``flowzoo.json``.
        known: Entries of the manifest that the new one goes into.
        name: The model's name there.
        repo_id: ``"organization/name"`` on the Hub; None if it is not decided.
        license_id: SPDX identifier of the weights' license.
        num_params: Number of trainable parameters.
        data: The images that the figure is measured on; those of the entry that this one renews stay.
        note: What a user should know; None keeps the note of the entry that this one renews.
        filename: Name of the weights file; None for that of the entry that this one renews, else the model's name.

    """
    architecture = get_architecture(card.architecture)
    before = [entry for entry in known if entry.name == name]
    version = version_for(before, card.weights.sha256)
    same = next((entry for entry in before if entry.version == version), None)
    preset = _preset(architecture, card.config)
    published = same.published if same else preset.published if preset else None
    reason = same.published_reason if same else None
    suffix = "" if version == 1 else f"-v{version}"
    kept = same.weights.filename if same and same.weights else None
    weights = Weights(
        filename=filename or kept or f"{name}{suffix}.safetensors",
        sha256=card.weights.sha256,
        size=card.weights.size,
        dtype=card.weights.dtype,
        repo_id=repo_id,
    )
    return Entry(
        name=name,
        version=version,
        status="released",
        architecture=card.architecture,
        config=dict(card.config),
        config_hash=card.config_hash,
        num_params=num_params,
        data=same.data if same else data,
        license=license_id,
        citations=tuple(citation.key for citation in architecture.citations),
        weights=weights,
        published=published,
        published_reason=None if published else reason or NONE_NAMED,
        training=_training(card, weights.filename) or (same.training if same else None),
        note=note or (same.note if same else None),
    )


def version_for(before: Iterable[Entry], sha256: str) -> int:
    """The version of a model's weights: the one that has them, the one that waits for some, or the next."""
    entries = sorted(before, key=lambda entry: entry.version)
    for entry in entries:
        if entry.weights is not None and entry.weights.sha256 == sha256:
            return entry.version
    if not entries:
        return 1
    return entries[-1].version + (entries[-1].status != "unpublished")


def _preset(architecture: Architecture, config: Mapping[str, Any]) -> Preset | None:
    """The preset whose full config this is."""
    kind = config_class(architecture.name)
    for name, preset in architecture.presets.items():
        if config_to_dict(parse_config(kind, preset.config, f"{architecture.name}-{name}")) == dict(config):
            return preset
    return None


def measured_images(card: Unlisted, dataset: str | None, data_root: Path | None) -> Data:
    """The test split that a model's figure is measured on. One's own images are counted, and known by their digest.

    Args:
        card: The export's ``flowzoo.json``.
        dataset: The data set's id here; None for the one that the export names.
        data_root: Where data sets are.

    Raises:
        InputError: Nothing says what the model was trained on.
        UnknownDataset: That data set is not known here.
        DataUnavailable: One's own images are not here.
    """
    from flowzoo.data import get_dataset

    identifier = dataset or card.details.get("dataset")
    if not isinstance(identifier, str) or not identifier:
        raise InputError(
            f"{card.name}: its flowzoo.json does not name a data set, so nothing can be measured or credited; "
            "give --data ID (`flowzoo data list`, folder:DIR?size=N or numpy:FILE.npy)."
        )
    found = get_dataset(identifier)
    _check_splitting(card, identifier)
    size, digest = found.split("test").size, found.split("test").sha256
    if size is None:
        images = found.load("test", data_root)
        size, digest = len(images), images.digest
    return Data(
        id=portable_id(found.id),
        preprocessing=found.preprocessing,
        split="test",
        num_images=size,
        terms=found.terms,
        release=found.release,
        digest=digest,
    )


def _check_splitting(card: Unlisted, dataset: str) -> None:
    """Checks that one's own images were not split by position in training, when they are split by content here."""
    if not is_split_by_content(dataset):
        return
    for stage in training_stages(card):
        trained = str(((stage.get("recipe") or {}).get("data") or {}).get("dataset", ""))
        if is_own(trained) and not holds_all_in_every_split(trained) and "preprocessing" not in stage:
            raise InputError(
                f"{card.name} was trained when flowzoo split one's own images by position; it now splits them by "
                "content, so that test images here may be among its training images. Train it again, and publish that."
            )


def training_stages(card: Unlisted) -> list[dict[str, Any]]:
    """The stages of the training that an export describes; of an older export, the one recipe that it holds."""
    facts = card.details.get("training")
    if not isinstance(facts, dict):
        return []
    stages = facts.get("stages")
    if isinstance(stages, list) and all(isinstance(stage, dict) for stage in stages):
        return stages
    if not isinstance(facts.get("recipe"), dict):
        return []
    # An older export counts earlier stages in and holds the last one's recipe alone.
    extra = int(facts.get("best_step") or facts.get("step") or 0) - int(facts.get("steps") or 0)
    earlier = [{"steps": extra}] if facts.get("steps") and extra > 0 else []
    return [*earlier, {"recipe": facts["recipe"], "versions": facts.get("versions") or {}}]


def check_held_out(card: Unlisted) -> None:
    """Checks that no stage of the training looked at the test split.

    Raises:
        InputError: One did; a figure on that split would say nothing.
    """
    for stage in training_stages(card):
        data = (stage.get("recipe") or {}).get("data") or {}
        used = [key for key in ("split", "valid_split") if data.get(key) == "test"]
        whole = holds_all_in_every_split(str(data.get("dataset", "")))
        if used or whole:
            how = (
                " and ".join(f"data.{key} was 'test'" for key in used)
                or "split=all put all images in every split"
            )
            raise InputError(
                f"{card.name} was trained or chosen on its test images ({how}), so that no figure on them says "
                "anything. Train it again on train, with valid for validation; nothing else is published."
            )


def _training(card: Unlisted, filename: str) -> Training | None:
    """The training in the manifest's words; None if the export does not describe it."""
    facts, stages = card.details.get("training"), training_stages(card)
    recipe = stages[-1].get("recipe") if stages else None
    if not isinstance(facts, dict) or not recipe:
        return None
    last, steps = facts.get("which") == "last", int(facts.get("step") or 0)
    if steps < 1:
        return None
    train, stem = recipe.get("train") or {}, filename.removesuffix(".safetensors")
    return Training(
        recipe=", ".join(recipe_files(stages, stem)),
        command=commands(stages, stem),
        steps=steps,
        hours=float(facts.get("hours") or 0.0),
        hardware=_hardware(facts.get("environment") or {}),
        seed=int(train.get("seed", recipe.get("seed", 0))),
        versions={key: str(value) for key, value in (facts.get("versions") or {}).items()},
        images=facts.get("images") or None,
        weights=_which(train.get("ema"), None if last else facts.get("best_step"), steps),
    )


def _which(ema: object, best: int | None, steps: int) -> str:
    """Which weights these are: of the best validation, at which update if more came after it, or of the end."""
    moment = "the end of training" if best is None else "the best validation"
    if best is not None and best < steps:
        moment += f", at update {best:,}"
    return (
        f"averaged weights (EMA {ema:g}) of {moment}"
        if isinstance(ema, float) and ema
        else f"weights of {moment}"
    )


def _hardware(machine: Mapping[str, Any]) -> str:
    threads = machine.get("threads", "?")
    return f"{machine.get('hardware', 'unknown')}, {threads} thread{'' if threads == 1 else 's'}"
