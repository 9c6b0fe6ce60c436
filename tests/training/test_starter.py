"""The starter recipe: a file that is the preset's recipe, says what every key means, and trains."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from flowzoo.cli.main import cli
from flowzoo.config import config_to_dict, whole_config
from flowzoo.errors import ConfigError, UnknownArchitecture
from flowzoo.factory import resolve
from flowzoo.registry import discover
from flowzoo.training.recipe import Recipe, parse_recipe
from flowzoo.training.starter import GENERAL, commented, starter
from flowzoo.training.train import find_recipe

PRESETS = [
    f"{plugin.name}-{key}"
    for plugin in discover().values()
    for key in (plugin.architecture.presets if plugin.architecture else {})
]


def read_back(recipe: Recipe) -> Recipe:
    return parse_recipe(tomllib.loads("\n".join(commented(recipe))), "again")


@pytest.mark.parametrize("name", PRESETS)
def test_the_file_is_the_presets_recipe_with_the_whole_config(name: str) -> None:
    found = starter(name, dataset="mnist")
    _, preset, config = resolve(name, {})
    # TOML has no null: a field without a value is a comment there.
    empty = {f"model.{key}" for key, value in found.model.items() if value is None}
    assert set(read_back(found).differences(found)) <= empty
    assert set(found.model) == {field.name for field in dataclasses.fields(config) if field.init}
    assert found.model == whole_config(config) or preset is None or preset.recipe is not None
    if preset is not None and preset.recipe is not None:
        original = find_recipe(name, ["data.dataset=mnist"])
        assert [key for key in found.differences(original) if not key.startswith("model")] == []
        _, _, meant = resolve(name, original.model)
        assert found.model == whole_config(meant)
        _, _, again = resolve(name, found.model)
        assert config_to_dict(again) == config_to_dict(meant), "the hash is that of the preset"


def test_an_optimizer_without_betas_is_given_none() -> None:
    recipe = find_recipe("glow-mnist", ["optimizer.name=SGD", "optimizer.momentum=0.9"])
    assert read_back(recipe) == recipe
    assert not [line for line in commented(recipe) if line.startswith(("betas", "eps"))]


def test_every_key_has_its_meaning_above_it() -> None:
    lines = list(commented(starter("glow-mnist")))
    table, silent = "", []
    for before, line in pairwise(lines):
        table = line if line.startswith("[") else table
        if (
            " = " in line
            and not line.startswith("#")
            and table != "[[schedule]]"
            and not before.startswith("#")
        ):
            silent.append(line)
    assert silent == []
    assert "# Width of the networks inside the couplings." in lines
    for field in ("depths = []", 'transformed_half = "second"', "label_dropout = false"):
        assert field in lines, "a field that the config gained later is one of its fields"
    assert "# clip_norm is not set" not in lines and "# patience is not set" in lines


def test_overrides_and_a_data_set_are_in_it() -> None:
    found = starter(
        "glow-mnist", ["train.steps=7", "model.depth=3"], dataset="folder:mine?size=28&channels=1"
    )
    again = read_back(found)
    assert (again.train.steps, again.model["depth"]) == (7, 3)
    assert again.data.dataset == "folder:mine?size=28&channels=1"


def test_values_that_need_care_survive() -> None:
    found = starter("glow-mnist", dataset="mnist")
    odd = dataclasses.replace(
        found, note='say "ä\\b"\n\t', model=found.model | {"depths": [1, 2], "alpha": 1e-08}
    )
    assert read_back(odd).differences(odd) == []


def test_what_cannot_be_begun_is_one_line() -> None:
    with pytest.raises(UnknownArchitecture, match="glow-mnist"):
        starter("glow-mnits")
    with pytest.raises(ConfigError, match="image_shape"):
        starter("glow")
    with pytest.raises(ConfigError, match="nonsense"):
        starter("glow-mnist", ["train.nonsense=1"])


def test_the_command_writes_a_file_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.save("images.npy", images)
    words = ["recipe", "glow-toy", "--data", "numpy:images.npy", "--set", "model.image_shape=[3,8,8]"]
    small = [
        "steps=2", "batch_size=4", "init_images=8", "samples=0", "validate_every=2", "validate_images=4",
    ]  # fmt: skip
    written = CliRunner().invoke(cli, [*words, *(w for s in small for w in ("--set", f"train.{s}"))])
    assert written.exit_code == 0, written.output
    assert "general one" in written.stderr
    Path("my.toml").write_text(written.stdout)
    trained = CliRunner().invoke(cli, ["train", "my.toml", "--out", "run", "--device", "cpu", "--json"])
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["step"] == 2


def test_a_preset_without_a_recipe_and_data_says_what_is_missing() -> None:
    result = CliRunner().invoke(cli, ["recipe", "glow-toy"])
    assert result.exit_code == 0
    assert "data.dataset" in result.stderr
    assert parse_recipe(tomllib.loads(result.stdout), "mine").note == GENERAL["note"]
    assert (
        json.loads(CliRunner().invoke(cli, ["recipe", "glow-mnist", "--json"]).stdout)["model"]["depth"] == 8
    )
