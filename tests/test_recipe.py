"""Recipes: strict, overridable, complete for every preset, and with the papers' figures."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from flowzoo.data import list_datasets
from flowzoo.errors import ConfigError
from flowzoo.factory import create, preset_names, resolve
from flowzoo.training.recipe import Recipe, Segment, parse_recipe, read_recipe
from flowzoo.training.schedules import lr_factor
from flowzoo.training.train import find_recipe

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL: dict[str, Any] = {"schema": 1, "name": "glow-tiny", "train": {"steps": 100}}


def with_recipe() -> list[str]:
    return [name for name in preset_names() if (preset := resolve(name, {})[1]) and preset.recipe]


def read_preset(name: str) -> Recipe:
    preset = resolve(name, {})[1]
    assert preset is not None
    assert preset.recipe is not None
    package, _, inside = preset.recipe.partition(":")
    text = files(package).joinpath(inside).read_text(encoding="utf-8")
    return parse_recipe(tomllib.loads(text), name)


def test_every_shipped_preset_but_toys_has_a_recipe() -> None:
    without = set(preset_names()) - set(with_recipe())
    assert {name for name in without if not name.endswith(("-toy", "-tiny"))} == set()


@pytest.mark.parametrize("name", with_recipe())
def test_a_presets_recipe_is_its_own_and_fits_the_model(name: str) -> None:
    recipe, (_, preset, _) = read_preset(name), resolve(name, {})
    assert recipe.name == name
    assert preset is not None
    assert recipe.data.dataset in {"", preset.dataset}
    assert recipe.data.dataset in {"", *list_datasets()}
    flow = create(name, device="meta", **recipe.model)
    if recipe.optimizer.decay_names:
        assert any(re.search(recipe.optimizer.decay_names, p) for p, _ in flow.named_parameters())
    total = recipe.train.total_steps(40_000)
    factors = [lr_factor(recipe.schedule, step, total) for step in range(0, total, max(1, total // 500))]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) > 0.99


@pytest.mark.parametrize(
    ("name", "batch", "lr", "optimizer"),
    [
        ("nice-cifar10", 200, 1e-3, "adam"),
        ("realnvp-cifar10", 64, 1e-3, "adam"),
        ("glow-cifar10", 512, 1e-3, "adamax"),
        ("glow-celebahq256", 40, 1e-3, "adamax"),
        ("flowpp-cifar10", 64, 3e-4, "adam"),
        ("flowpp-imagenet32", 32, 1e-3, "adam"),
        ("flowpp-imagenet64", 72, 4e-4, "adam"),
        ("flowpp-celeba64", 56, 4e-5, "adam"),
    ],
)
def test_the_papers_settings(name: str, batch: int, lr: float, optimizer: str) -> None:
    recipe = read_preset(name)
    assert (recipe.train.batch_size, recipe.optimizer.lr, recipe.optimizer.name) == (batch, lr, optimizer)


@pytest.mark.parametrize(
    ("step", "lr"),
    [
        (9_999, 4e-4),
        (30_000, 4e-4),
        (54_999, 4e-4 * 0.99995**4999),
        (55_000, 3e-4),
        (229_999, 3e-4),
        (239_999, 1e-5),
        (270_000, 1e-5),
        (285_000, 1e-6),
    ],
)
def test_the_schedule_of_flowpp_on_imagenet64(step: int, lr: float) -> None:
    recipe = read_preset("flowpp-imagenet64")
    assert recipe.optimizer.lr * lr_factor(recipe.schedule, step, 300_000) == pytest.approx(lr, rel=1e-9)


def test_round_trip() -> None:
    recipe = read_preset("glow-mnist")
    assert parse_recipe(recipe.to_dict(), "again") == recipe
    assert recipe.differences(recipe) == []


def test_overrides() -> None:
    sets = ["train.steps=7", "model.depth=3", "optimizer.betas=[0.5,0.9]", "data.dataset=mnist"]
    recipe = parse_recipe(MINIMAL, "x", sets)
    assert recipe.train.steps == 7
    assert recipe.model == {"depth": 3}
    assert recipe.optimizer.betas == (0.5, 0.9)
    assert recipe.data.dataset == "mnist"
    assert MINIMAL["train"] == {"steps": 100}
    changed = parse_recipe(MINIMAL, "x", ["train.epochs=2"])
    assert (changed.train.steps, changed.train.epochs) == (None, 2.0)
    listed = MINIMAL | {"schedule": [{"kind": "linear", "steps": 5}]}
    assert parse_recipe(listed, "x", ["schedule.0.steps=9"]).schedule[0].steps == 9
    assert parse_recipe(MINIMAL, "x", ["train.clip_norm=none"]).train.clip_norm is None
    assert recipe.differences(parse_recipe(MINIMAL, "x"))[:2] == ["data.dataset", "model"]


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["train.stpes=1"], "steps"),
        (["train.steps=0"], "positive"),
        (["train.steps=1.5"], "int"),
        (["optimizer.name=3"], "optimizer.*name is 3"),
        (["optimizer.lr=-1"], "positive"),
        (["train"], "key=value"),
        (["train.steps.x=1"], "table"),
        (["schedule.3.steps=1"], "schedule"),
        (["train.accumulate=3"], "equal parts"),
        (["schema=2"], "schema"),
        (["train.ema=1.0"], "ema"),
    ],
)
def test_mistakes_are_named(sets: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_recipe(MINIMAL, "recipe", sets)


def test_steps_and_epochs_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        parse_recipe({"schema": 1, "name": "x", "train": {}}, "x")
    with pytest.raises(ConfigError, match="exactly one"):
        parse_recipe({"schema": 1, "name": "x", "train": {"steps": 1, "epochs": 1}}, "x")


def test_only_the_last_segment_is_open() -> None:
    with pytest.raises(ConfigError, match="last schedule segment"):
        parse_recipe(MINIMAL | {"schedule": [{"kind": "constant"}, {"kind": "cosine"}]}, "x")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('schema = 1\nname = "glow-tiny"\n[train]\nsteps = 3\n[data]\ndataset = "mnist"\n')
    assert find_recipe(str(path), ["train.seed=4"]).train.seed == 4
    path.write_text("schema = ")
    with pytest.raises(ConfigError, match="not TOML"):
        read_recipe(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="no data set is named"):
        find_recipe("glow-tiny")


def test_epochs_count_whole_batches() -> None:
    recipe = parse_recipe(MINIMAL, "x", ["train.epochs=2.5", "train.batch_size=30"])
    assert recipe.train.total_steps(100) == 8


def factors(*segments: Segment, total: int) -> list[float]:
    return [lr_factor(segments, step, total) for step in range(total)]


def test_a_warm_up_moves_at_once_and_arrives() -> None:
    found = factors(Segment(kind="linear", steps=4), Segment(kind="constant"), total=6)
    assert found == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_cosine_falls_to_zero() -> None:
    found = factors(Segment(kind="cosine"), total=1000)
    assert found[0] == 1.0
    assert found[500] == pytest.approx(0.5)
    assert 0 < found[999] < 1e-5
    assert found == sorted(found, reverse=True)


def test_an_exponential_has_a_floor() -> None:
    found = factors(Segment(kind="exponential", rate=0.5, every=2, floor=0.1), total=12)
    assert found[2] == 0.5
    assert found[4] == 0.25
    assert found[11] == 0.1


def test_after_the_last_segment_its_end_holds() -> None:
    assert factors(Segment(kind="linear", steps=2, end=0.5), total=5) == [0.25, 0.5, 0.5, 0.5, 0.5]
    assert factors(total=2) == [1.0, 1.0]
