"""Cards, manifests and exports name what was done: the resolved recipe of every stage."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flowzoo.cli.main import cli
from flowzoo.data.portable import portable_id
from flowzoo.errors import ConfigError, InputError
from flowzoo.evaluation.measure import evaluate
from flowzoo.manifest.read import load_manifests
from flowzoo.publishing.describe import check_held_out, describe, measured_images
from flowzoo.publishing.stage import stage_run
from flowzoo.training.export import export_weights
from flowzoo.training.provenance import commands, origin_of, run_stages
from flowzoo.training.recipe import read_recipe
from flowzoo.training.run_dir import RunDir
from flowzoo.training.train import train
from flowzoo.weights.external import read_card
from flowzoo.weights.hub.settings import hub_settings
from flowzoo.weights.load import load
from flowzoo.weights.resolve import locate
from tests.trainings import save_images, tiny_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two stages: six steps, then eight more from their weights without averaging."""
    directory = tmp_path_factory.mktemp("stages")
    dataset = save_images(directory / "images.npy", 203)
    first = tiny_recipe("glow-tiny", dataset, steps=6)
    train(first, directory / "first", device="cpu", progress=False)
    second = tiny_recipe("glow-tiny", dataset, steps=8, ema=0.0)
    train(second, directory / "second", device="cpu", progress=False, init_from=directory / "first")
    return directory, dataset


@pytest.fixture
def exported(runs: tuple[Path, str], tmp_path: Path) -> Path:
    export_weights(runs[0] / "second", tmp_path / "export")
    return tmp_path / "export"


def test_every_stage_keeps_its_recipe(runs: tuple[Path, str]) -> None:
    stages = run_stages(RunDir(runs[0] / "second"))
    assert [stage["steps"] for stage in stages] == [6, 8]
    assert [stage["recipe"]["train"]["ema"] for stage in stages] == [0.9, 0.0]
    assert all(stage["versions"]["torch"] for stage in stages)


def test_an_export_holds_the_recipes_that_its_command_names(exported: Path) -> None:
    names = sorted(path.name for path in exported.iterdir())
    assert names == ["flowzoo.json", "model.safetensors", "recipe-1.toml", "recipe-2.toml"]
    card = json.loads((exported / "flowzoo.json").read_text())
    assert card["training"]["command"] == (
        "flowzoo train recipe-1.toml --out RUN1 && flowzoo train recipe-2.toml --init-from RUN1 --out RUN"
    )
    for number, stage in enumerate(card["training"]["stages"], start=1):
        recipe = read_recipe(exported / f"recipe-{number}.toml")
        assert recipe.to_dict() == stage["recipe"]
        assert recipe.model == card["config"], "the whole config, so that it outlives the preset"


def test_an_export_names_no_directory_of_this_machine_and_has_a_fingerprint(
    exported: Path, runs: tuple[Path, str]
) -> None:
    for path in exported.glob("*.*"):
        assert str(runs[0]).encode() not in path.read_bytes(), path.name
    assert read_card(exported / "flowzoo.json").details["dataset"] == "numpy:images.npy"
    assert len(read_card(exported / "flowzoo.json").details["fingerprint"]["bpd"]) == 4
    assert evaluate(f"path:{exported}", dataset=runs[1], device="cpu", progress=False).num_images == 20


def test_an_export_takes_a_name_and_no_foreign_directory(runs: tuple[Path, str], tmp_path: Path) -> None:
    export_weights(runs[0] / "second", tmp_path / "a", name="mine")
    export_weights(runs[0] / "second", tmp_path / "a", name="mine")
    assert load(f"path:{tmp_path / 'a'}").card.name == "mine"  # type: ignore[union-attr]
    before = (tmp_path / "a" / "flowzoo.json").read_bytes()
    with pytest.raises(InputError, match="an earlier export of other"):
        export_weights(runs[0] / "second", tmp_path / "a", name="other")
    with pytest.raises(InputError, match="the run itself"):
        export_weights(runs[0] / "second", runs[0] / "second")
    with pytest.raises(InputError, match="cannot be a model's name"):
        export_weights(runs[0] / "second", tmp_path / "b", name="../x")
    assert (tmp_path / "a" / "flowzoo.json").read_bytes() == before


def test_the_entry_says_which_weights_they_are_and_what_they_ran_with(
    exported: Path, runs: tuple[Path, str]
) -> None:
    card = read_card(exported / "flowzoo.json")
    data = measured_images(card, runs[1], None)
    entry = describe(card, [], name="mine", repo_id=None, license_id="MIT", num_params=1, data=data)
    assert entry.training is not None
    assert entry.training.weights == "weights of the best validation", "averaging was off"
    assert entry.training.recipe == "mine.recipe-1.toml, mine.recipe-2.toml"
    assert "mine.recipe-2.toml --init-from RUN1" in entry.training.command
    assert entry.training.versions["torch"]
    assert (data.id, data.num_images) == ("numpy:images.npy", 20)
    assert data.digest is not None


@pytest.mark.parametrize(
    "setting", [{"split": "test"}, {"valid_split": "test"}, {"dataset": "numpy:x.npy?split=all"}]
)
def test_a_model_that_saw_its_test_split_is_refused(exported: Path, setting: dict[str, str]) -> None:
    card = read_card(exported / "flowzoo.json")
    check_held_out(card)
    recipe = card.details["training"]["stages"][0]["recipe"]
    recipe["data"] = recipe["data"] | setting
    with pytest.raises(InputError, match="on its test images"):
        check_held_out(card)


def test_weights_of_unknown_origin_are_named_as_such(runs: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copyfile(runs[0] / "first" / "last.safetensors", tmp_path / "found.safetensors")
    recipe = tiny_recipe("glow-tiny", runs[1], steps=6)
    train(recipe, tmp_path / "run", device="cpu", progress=False, init_from=tmp_path / "found.safetensors")
    export_weights(tmp_path / "run", tmp_path / "export")
    card = json.loads((tmp_path / "export" / "flowzoo.json").read_text())
    assert "weights of unrecorded origin, sha256" in card["training"]["command"]
    assert (tmp_path / "export" / "recipe-2.toml").is_file()


def test_a_run_from_a_file_that_lost_its_beginning_asks_for_it_again(
    runs: tuple[Path, str], tmp_path: Path
) -> None:
    recipe, run = tiny_recipe("glow-tiny", runs[1], steps=6), tmp_path / "run"
    source = runs[0] / "first" / "last.safetensors"
    train(recipe, run, device="cpu", progress=False, init_from=source)
    shutil.rmtree(run / "checkpoints")  # As if it had been killed before the first.
    with pytest.raises(ConfigError, match=r"starts from other weights .* give --init-from again"):
        train(recipe, run, device="cpu", progress=False)
    assert train(recipe, run, device="cpu", progress=False, init_from=source).state == "finished"


def test_released_weights_bring_their_recipes_and_their_cost(tmp_path: Path) -> None:
    entry = load_manifests().get("ffjord-moons")
    assert entry.training is not None
    weights = locate(entry, hub_settings())
    sets = ("train.steps=2", "train.validate_images=20")
    train("ffjord-moons", tmp_path / "run", sets=sets, device="cpu", progress=False, init_from=weights)
    stages = run_stages(RunDir(tmp_path / "run"))
    recipes = [weights.with_name(f"{weights.stem}.recipe-{number}.toml") for number in (1, 2)]
    assert [stage["recipe"] for stage in stages[:2]] == [read_recipe(path).to_dict() for path in recipes]
    assert [stage.get("steps") for stage in stages] == [None, entry.training.steps, 2]
    cost = RunDir(tmp_path / "run").cost()
    assert cost["step"] == entry.training.steps + 2
    assert cost["seconds"] > entry.training.hours * 3600
    export_weights(tmp_path / "run", tmp_path / "export")
    assert [(tmp_path / "export" / f"recipe-{number}.toml").is_file() for number in (1, 2, 3)] == [True] * 3
    again = read_recipe(tmp_path / "export" / "recipe-1.toml")
    assert again == read_recipe(recipes[0])


def test_released_weights_without_recipes_are_named_by_their_model(tmp_path: Path) -> None:
    entry = load_manifests().get("ffjord-moons")
    assert entry.training is not None
    assert entry.weights is not None
    alone = tmp_path / "elsewhere.safetensors"
    shutil.copyfile(locate(entry, hub_settings()), alone)
    origin = origin_of(alone)
    assert [stage["weights"]["model"] for stage in origin.stages] == [entry.key]
    assert origin.cost["step"] == entry.training.steps
    assert commands(origin.stages) == f"# {entry.key}, sha256 {entry.weights.sha256} --out RUN"


def test_a_stage_that_was_broken_off_is_repeated_up_to_its_best_weights(tmp_path: Path) -> None:
    dataset = save_images(tmp_path / "images.npy", 203)
    options: dict[str, Any] = {"device": "cpu", "progress": False}
    long = tiny_recipe("glow-tiny", dataset, steps=40)
    # Two updates later the recipe's next validation was still to come.
    train(long, tmp_path / "first", stop_after=4, **options)
    train(long, tmp_path / "first", max_seconds=0.0, **options)
    train(
        tiny_recipe("glow-tiny", dataset, steps=2),
        tmp_path / "second",
        init_from=tmp_path / "first",
        **options,
    )
    stages = run_stages(RunDir(tmp_path / "second"))
    assert [stage.get("stop_after") for stage in stages] == [4, None]
    first, second = commands(stages).split(" && ")
    assert first == "flowzoo train recipe-1.toml --stop-after 4 --out RUN1"
    assert second == "flowzoo train recipe-2.toml --init-from RUN1 --out RUN"
    train(long, tmp_path / "again", stop_after=4, **options)
    assert RunDir(tmp_path / "again").best.read_bytes() == RunDir(tmp_path / "first").best.read_bytes()


def test_stages_of_released_weights_stay_broken_off_or_unrecorded() -> None:
    for entry in load_manifests().entries:
        if entry.weights is None or entry.training is None or not entry.training.recipe.endswith(".toml"):
            continue
        found = locate(entry, hub_settings())
        if not found.with_name(entry.training.recipe.split(", ")[0]).is_file():
            continue
        stages = origin_of(found).stages
        stem = found.name.removesuffix(".safetensors")
        assert commands(stages, stem).split(" && ")[-1] == entry.training.command.split(" && ")[-1]
        marks = [stage.get("stop_after") for stage in stages if "recipe" in stage]
        assert [mark for mark in marks if mark] == [
            int(number) for number in re.findall(r"--stop-after (\d+)", entry.training.command)
        ]


def test_the_recipes_of_released_weights_add_up_to_the_images_seen() -> None:
    """Steps and images are of all stages; a recipe alone tells of its own whole length."""
    checked = 0
    for entry in load_manifests().entries:
        if entry.weights is None or entry.training is None or "unrecorded" in entry.training.command:
            continue
        if not entry.training.recipe.endswith(".toml"):
            continue
        found = locate(entry, hub_settings())
        stages = origin_of(found).stages
        if not all("recipe" in stage for stage in stages):
            continue
        trains = [stage["recipe"]["train"] for stage in stages]
        most = [train["steps"] * train["batch_size"] * train.get("accumulate", 1) for train in trains]
        broken_off = [bool(stage.get("stop_after")) for stage in stages]
        assert entry.training.images is not None
        assert entry.training.images <= sum(most), entry.key
        assert any(broken_off) == (entry.training.images < sum(most)), entry.key
        if not any(broken_off):
            assert entry.training.steps == sum(train["steps"] for train in trains), entry.key
        checked += 1
    assert checked > 15


def test_a_model_of_ones_own_images_is_staged(runs: tuple[Path, str], tmp_path: Path) -> None:
    manifest = tmp_path / "m.json"
    manifest.write_text('{"schema": 1, "models": []}')
    staged = stage_run(
        runs[0] / "second", tmp_path / "stage", manifest, repo_id="me/blobs", name="blobs", temperature=0.5
    )
    assert staged.entry.sampling is not None and staged.entry.sampling.finite == 10_000
    assert staged.entry.measured is not None and staged.entry.measured.num_images == 20
    assert staged.entry.measured.command == "flowzoo eval blobs@1 --data numpy:images.npy"
    text = (tmp_path / "stage" / "README.md").read_text()
    for words in (
        "Samples at temperature 0.5",
        "10,000 of 10,000",
        "blobs.recipe-2.toml",
        "Recommended temperature: 0.5",
    ):
        assert words in text
    assert all(str(runs[0]) not in path.read_text() for path in (tmp_path / "stage").glob("*.[mjt]*o*"))
    for place in (tmp_path, runs[0]):
        with pytest.raises(InputError, match="holds other files"):
            stage_run(runs[0] / "second", place, manifest, repo_id="me/blobs", name="blobs")


def test_ids_of_own_images_lose_their_directories() -> None:
    assert portable_id("folder:/home/me/faces/?size=64") == "folder:faces?size=64"
    assert portable_id("mnist") == "mnist"


def test_info_shows_runs_and_exports(runs: tuple[Path, str], exported: Path) -> None:
    for subject, kind in (
        (runs[0] / "second", "run"),
        (exported, "exported model"),
        (f"path:{exported}", "exported model"),
    ):
        result = CliRunner().invoke(cli, ["info", str(subject), "--json"], standalone_mode=False)
        assert result.exception is None, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        assert (found["kind"], found["architecture"]) == (kind, "glow")
    stack = CliRunner().invoke(cli, ["info", str(exported), "--stack"], standalone_mode=False)
    assert stack.exception is None and "ActNorm" in stack.stdout
