"""Words of ``flowzoo train --dry-run`` and ``flowzoo sample`` for people."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from flowzoo.cli.main import main
from flowzoo.errors import ConfigError
from flowzoo.factory import preset_names
from flowzoo.registry import discover
from flowzoo.training.dry_run import dry_run
from flowzoo.training.recipe import parse_recipe
from flowzoo.training.toml_text import toml_lines
from flowzoo.training.train import find_recipe
from tests.trainings import save_images

RECIPES = [
    f"{plugin.name}-{key}"
    for plugin in discover().values()
    for key, preset in (plugin.architecture.presets if plugin.architecture else {}).items()
    if preset.recipe
]


def test_most_presets_have_a_recipe() -> None:
    assert len(RECIPES) > len(preset_names()) / 2


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_written_as_toml_is_the_same_recipe(name: str) -> None:
    recipe = find_recipe(name, ["data.dataset=mnist"])
    text = "\n".join(toml_lines(recipe.to_dict()))
    assert parse_recipe(tomllib.loads(text), "again").differences(recipe) == []


def test_strings_survive_toml() -> None:
    values = {"note": 'say "ä\\b"\n\t\x01', "part": {"empty": [], "no": None, "rate": 1e-08}, "nothing": {}}
    found = tomllib.loads("\n".join(toml_lines(values)))
    assert found == {"note": values["note"], "part": {"empty": [], "rate": 1e-08}}


def test_a_dry_run_prints_the_recipe_and_its_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    np.save("images.npy", pixels)
    with pytest.raises(SystemExit) as caught:
        main(["train", "glow-tiny", "--dry-run", "--device", "cpu", "--set", "data.dataset=numpy:images.npy"])
    out, err = capsys.readouterr()
    assert (caught.value.code, err) == (0, "")
    recipe, cost = out.rsplit("\n\n", 1)
    assert tomllib.loads(recipe)["data"]["dataset"] == "numpy:images.npy"
    assert "\nparameters                      20,612\n" in cost
    assert "\nprecision of networks           float32\n" in cost
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


def test_a_dry_run_decides_the_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [f"data.dataset={save_images(tmp_path / 'images.npy', 80, (3, 8, 8))}", "train.precision=auto"]
    for units, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("flowzoo.training.opening.has_bfloat16_units", lambda _, units=units: units)
        plan = dry_run(find_recipe("glow-tiny", sets), device="cpu")
        assert plan["precision of networks"] == f"{precision} (auto)"
        assert plan["recipe"]["train"]["precision"] == precision


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_asks_every_processor_for_bfloat16(name: str) -> None:
    assert find_recipe(name, ["data.dataset=mnist"]).train.precision in ("auto", "float32")


@pytest.mark.parametrize("place", ["/no/such/place", "./here", "."])
def test_a_path_without_a_model_is_called_that(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["sample", place, "-n", "1"])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (8, "")
    assert err.startswith(f"Error: {place} holds neither a run nor an exported model; ")


def test_a_recipe_of_another_schema_is_called_that_before_its_keys() -> None:
    with pytest.raises(ConfigError, match=r"own\.toml: schema is 2; this flowzoo reads 1"):
        parse_recipe({"schema": 2, "invented": {}}, "own.toml")


def test_a_grid_is_a_png_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["sample", "glow-mnist", "-n", "1", "-o", "grid.jpg"])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert "'grid.jpg'" in err
    assert not any(tmp_path.iterdir())
