"""Models that ``eval``, ``sample`` and ``info`` take: by a manifest's name, a run's directory, or a path."""

from __future__ import annotations

import dataclasses
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowzoo.data.portable import is_split_by_content
from flowzoo.errors import InputError, ManifestError

if TYPE_CHECKING:
    from flowzoo.flow import Flow
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.external import Unlisted


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A trained flow and what it is to be measured on.

    Attributes:
        name: As it was given.
        flow: The flow, in eval mode on the CPU.
        entry: Its manifest entry, or the one that its ``flowzoo.json`` states, if it has one.
        dataset: Data set id; empty if nothing says it.
        split: The split that figures are measured on.
        listed: Whether the entry is a manifest's.
    """

    name: str
    flow: Flow
    entry: Entry | None
    dataset: str
    split: str = "test"
    listed: bool = True


def find_target(name: str) -> Target:
    """Loads a model for measuring or sampling.

    Args:
        name: A manifest's name such as ``"glow-mnist"``, a run's directory (its best weights), an
            exported directory with ``flowzoo.json``, or ``"path:DIR"`` or ``"hf:..."``.

    Raises:
        InputError: It is no text.
        FlowzooError: It is nowhere, or not sound.
    """
    if not isinstance(name, str):
        raise InputError(
            f"The model is a {type(name).__name__}; expected its name as in `flowzoo list`, or the directory of a run "
            "or an export, as a text. flow.bits_per_dim(images) measures a flow that is in memory."
        )
    path = Path(name.removeprefix("path:"))
    check_unambiguous(name, path)
    if _present(path, "run.json"):
        return _run_target(name, path)
    if _present(path, "flowzoo.json") and not name.startswith("path:"):
        name = f"path:{name}"
    elif name.startswith(("/", ".", "~")):
        raise InputError(
            f"{name} holds neither a run nor an exported model; give a directory that `flowzoo train --out` or "
            "`flowzoo export -o` wrote, or a model of `flowzoo list`."
        )
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.load import load

    flow = load(name)
    if isinstance(flow.card, Entry):
        return Target(
            name=flow.card.name,
            flow=flow,
            entry=flow.card,
            dataset=flow.card.data.id,
            split=flow.card.data.split,
        )
    if flow.card is not None and (stated := stated_entry(flow.card)) is not None:
        data = stated.data
        return Target(name=name, flow=flow, entry=stated, dataset=data.id, split=data.split, listed=False)
    details = getattr(flow.card, "details", {})
    return Target(name=name, flow=flow, entry=None, dataset=str(details.get("dataset", "")))


def stated_entry(card: Unlisted) -> Entry | None:
    """The entry that a published ``flowzoo.json`` states; None of an export, which states no figure.

    A card is somebody's word: an account that is not a consistent entry with a figure counts as none.
    """
    from flowzoo.manifest.schema import Entry
    from flowzoo.manifest.typed_json import read

    # An export's account of its training is longer than an entry's.
    fields = {field.name for field in dataclasses.fields(Entry)} - {"training"}
    known = {key: value for key, value in card.details.items() if key in fields}
    named = {key: getattr(card, key) for key in ("name", "architecture", "config", "config_hash")}
    weights = dataclasses.asdict(card.weights)
    try:
        entry: Entry = read(Entry, {**known, **named, "weights": weights}, card.name)
    except ManifestError:
        return None
    return None if entry.measured is None or any(entry.faults()) else entry


def _present(directory: Path, file: str) -> bool:
    """Whether anything has this name: who reads it says what is wrong with a pipe or a broken link."""
    return os.path.lexists(directory / file)


def check_unambiguous(name: str, path: Path) -> None:
    """Checks that a bare name does not mean both a listed model and a directory here.

    Raises:
        InputError: It does; the figure of one would pass for the other's.
    """
    if "/" in name or ":" in name or not any(_present(path, file) for file in ("run.json", "flowzoo.json")):
        return
    from flowzoo.manifest.read import load_manifests

    manifest = load_manifests()
    base = name.partition("@")[0]
    if base in manifest.names():
        model = name if "@" in name else f"{name}@{manifest.get(name).version}"
        other = f"{model!r} for the model" if model != name else "another working directory for the model"
        raise InputError(
            f"{name!r} is a model of `flowzoo list` and a directory here; write './{name}' for the directory, "
            f"{other}."
        )


def _run_target(name: str, path: Path) -> Target:
    from flowzoo.training.export import load_run
    from flowzoo.training.run_dir import RunDir

    run = RunDir(path)
    recipe = run.recipe()
    if not recipe.data.dataset:
        raise InputError(f"{path}: its recipe names no data set; give --data.")
    recorded = (run.header().get("data") or {}).get("training") or {}
    if is_split_by_content(recipe.data.dataset) and "preprocessing" not in recorded:
        warnings.warn(
            f"{path} was trained when one's own images were split by position; they are now split by content, so test "
            "images here may have been among its training images.",
            UserWarning,
            stacklevel=2,
        )
    return Target(name=name, flow=load_run(path), entry=None, dataset=recipe.data.dataset)
