"""The manifest entry of a run: what its ``flowzoo.json`` says, and what installed code knows about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flowzoo.api import Architecture, Preset
from flowzoo.config import config_to_dict, parse_config
from flowzoo.errors import InputError
from flowzoo.manifest.schema import Data, Entry, Training, Weights
from flowzoo.registry import config_class, get_architecture

if TYPE_CHECKING:
    from flowzoo.weights.external import Unlisted

__all__ = ["describe", "version_for"]

NO_FIGURE = "no paper gives a figure for exactly this configuration"


def describe(
    card: Unlisted,
    known: Iterable[Entry],
    *,
    name: str,
    repo_id: str,
    license_id: str,
    num_params: int,
    note: str | None = None,
) -> Entry:
    """Drafts the manifest entry of exported weights, without figures yet.

    Args:
        card: The export's ``flowzoo.json``.
        known: Entries of the manifest that the new one goes into.
        name: The model's name there.
        repo_id: ``"organization/name"`` on the Hub.
        license_id: SPDX identifier of the weights' license.
        num_params: Number of trainable parameters.
        note: What a user should know; None keeps the note of the entry that this one renews.

    Raises:
        InputError: The export does not say what it was trained on.
        UnknownDataset: That data set is not known here.
    """
    architecture = get_architecture(card.architecture)
    before = [entry for entry in known if entry.name == name]
    version = version_for(before, card.weights.sha256)
    same = next((entry for entry in before if entry.version == version), None)
    preset = _preset(architecture, card.config)
    published = same.published if same else preset.published if preset else None
    reason = same.published_reason if same else None
    suffix = "" if version == 1 else f"-v{version}"
    weights = Weights(
        filename=same.weights.filename if same and same.weights else f"{name}{suffix}.safetensors",
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
        data=same.data if same else _data(card),
        license=license_id,
        citations=tuple(citation.key for citation in architecture.citations),
        weights=weights,
        published=published,
        published_reason=None if published else reason or NO_FIGURE,
        training=_training(card, preset) or (same.training if same else None),
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


def _data(card: Unlisted) -> Data:
    from flowzoo.data import get_dataset

    identifier = card.details.get("dataset")
    if not isinstance(identifier, str) or not identifier:
        raise InputError(
            f"{card.name}: its flowzoo.json does not name a data set, so nothing can be measured or credited; "
            'export it with `flowzoo export`, or add "dataset".'
        )
    dataset = get_dataset(identifier)
    test = dataset.split("test")
    if test.size is None:
        raise InputError(f"The data set {identifier!r} has no fixed test split; a released model needs one.")
    return Data(
        id=dataset.id,
        preprocessing=dataset.preprocessing,
        split="test",
        num_images=test.size,
        terms=dataset.terms,
        release=dataset.release,
        digest=test.sha256,
    )


def _training(card: Unlisted, preset: Preset | None) -> Training | None:
    """What the run's summary says, in the manifest's words; None if there is no summary."""
    facts = card.details.get("training")
    if not isinstance(facts, dict) or not isinstance(facts.get("recipe"), dict):
        return None
    recipe, machine = facts["recipe"], facts.get("environment") or {}
    steps = facts.get("best_step") or facts.get("step") or 0
    if steps < 1:
        return None
    return Training(
        recipe=preset.recipe
        if preset and preset.recipe
        else f"{recipe.get('name', card.name)} (in flowzoo.json)",
        command=f"flowzoo train {recipe.get('name', card.name)} --out RUN",
        steps=int(steps),
        hours=float(facts.get("hours") or 0.0),
        hardware=_hardware(machine),
        seed=int(recipe.get("seed", 0)),
        versions=dict(facts.get("versions") or {}),
        images=facts.get("images") or None,
    )


def _hardware(machine: Mapping[str, Any]) -> str:
    threads = machine.get("threads", "?")
    return f"{machine.get('hardware', 'unknown')}, {threads} thread{'' if threads == 1 else 's'}"
