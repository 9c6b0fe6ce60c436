"""A preset's recipe as a file to begin one's own with: everything that it decides, each key with its meaning."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowzoo.config import config_to_dict, whole_config
from flowzoo.config_fields import meanings
from flowzoo.registry import config_class
from flowzoo.training.recipe import Optimizer, Recipe, Segment, parse_recipe

__all__ = ["GENERAL", "commented", "starter"]

GENERAL: Mapping[str, Any] = {
    "note": "A general beginning: its preset brings no recipe, and nobody has tuned this.",
    "train": {"steps": 2000, "batch_size": 64, "clip_norm": 1.0, "ema": 0.99, "validate_every": 500},
    "optimizer": {"lr": 1e-3},
    "schedule": [{"kind": "linear", "steps": 100}, {"kind": "cosine"}],
}
"""The recipe of a preset that brings none."""

_LATER = "to-be-named"
"""The data set of a recipe that waits for the user to name one."""

_WIDTH = 110
_ORDER = "data train optimizer"


def starter(name: str, sets: Iterable[str] = (), *, dataset: str | None = None) -> Recipe:
    """The recipe of a preset with every field of the model's config in it; a general one if the preset brings none.

    Args:
        name: A preset such as ``"glow-mnist"``.
        sets: ``key=value`` overrides.
        dataset: The data set's id; None for the preset's. It stays empty where neither names one.

    Raises:
        UnknownArchitecture: There is no such preset.
        ConfigError: The recipe or an override is invalid.
    """
    from flowzoo.factory import resolve
    from flowzoo.training.train import find_recipe

    _, preset, _ = resolve(name, {})
    known = dataset or (preset.dataset if preset else None) or _LATER
    sets = [f"data.dataset={known}", *sets]
    if preset is not None and preset.recipe is not None:
        recipe = find_recipe(name, sets)
    else:
        recipe = parse_recipe({"schema": 1, "name": name, **GENERAL}, f"recipe of {name}", sets)
    if recipe.data.dataset == _LATER:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, dataset=""))
    _, _, config = resolve(recipe.name, recipe.model)
    return dataclasses.replace(recipe, model=whole_config(config))


def commented(recipe: Recipe) -> Iterator[str]:
    """Lines of TOML: every key of the recipe with its meaning above it. They read back as the same recipe.

    A key without a value is a comment: TOML has no null.
    """
    from flowzoo.factory import resolve

    architecture, _, _ = resolve(recipe.name, recipe.model)
    said, values = meanings(Recipe), {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    tables = {key: value for key, value in values.items() if dataclasses.is_dataclass(value)}
    yield f"# Train with it: flowzoo train FILE.toml --out RUN. Begin anew: flowzoo recipe {recipe.name}"
    plain = {key: value for key, value in values.items() if key not in {*tables, "model", "schedule"}}
    yield from _table(plain, said)
    yield from ("", "# The model's config.", "[model]")
    yield from _table(recipe.model, meanings(config_class(architecture.name)))
    for key in sorted(tables, key=lambda key: (key not in _ORDER, _ORDER.find(key))):
        part = tables[key]
        yield from ("", *_comment((type(part).__doc__ or "").partition("\n")[0]), f"[{key}]")
        given = config_to_dict(part)
        if isinstance(part, Optimizer) and not part.own:
            # They are arguments of Adam's family; another optimizer would be given them, or refuse them.
            given = {key: value for key, value in given.items() if key not in ("betas", "eps")}
        yield from _table(given, meanings(type(part)))
    yield from _schedule(recipe.schedule)


def _table(values: Mapping[str, Any], said: Mapping[str, str]) -> Iterator[str]:
    for key, value in values.items():
        yield from _comment(said.get(key, ""))
        if key == "dataset" and not value:
            yield '# dataset = "ID" has to be given: flowzoo data list shows the ids'
        elif value is None:
            yield f"# {key} is not set"
        else:
            yield f"{key} = {_toml(value)}"


def _schedule(segments: tuple[Segment, ...]) -> Iterator[str]:
    """The segments, each with what it sets; the meaning of every key comes once."""
    yield ""
    yield from _comment((Segment.__doc__ or "").partition("\n")[0])
    for key, meaning in meanings(Segment).items():
        yield from _comment(f"{key}: {meaning}")
    if not segments:
        yield "# There is no [[schedule]]: the rate is constant."
    for segment in segments:
        yield "[[schedule]]"
        for field in dataclasses.fields(segment):
            value = getattr(segment, field.name)
            if value != field.default:
                yield f"{field.name} = {_toml(value)}"
        yield ""


def _comment(text: str) -> list[str]:
    plain = text.replace("``", "")
    return textwrap.wrap(plain, _WIDTH, initial_indent="# ", subsequent_indent="#   ") if plain else []


def _toml(value: Any) -> str:
    """A value as TOML; JSON's texts, numbers, booleans and lists of these are TOML's."""
    if isinstance(value, Mapping):
        pairs = ", ".join(
            f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items() if item is not None
        )
        return f"{{ {pairs} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
