"""Runs side by side, their curves in one picture, and a run that is extended."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from PIL import Image

from flowzoo.analysis.curves import MANY_COLOURS
from flowzoo.cli.main import cli, main
from flowzoo.errors import CheckpointError, InputError
from flowzoo.training.run_dir import RunDir
from flowzoo.training.runs import compare_runs, plot_runs
from flowzoo.training.schedules import lr_factor
from flowzoo.training.train import longer_recipe, train
from tests.trainings import save_images, tiny_recipe

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in rate and optimizer, and one of another kind of schedule."""
    base = tmp_path_factory.mktemp("runs")
    dataset = save_images(base / "images.npy", 300)
    for name, sets in {
        "first": (),
        "second": ("optimizer.lr=0.01", "optimizer.name=SGD", "optimizer.momentum=0.5"),
    }.items():
        recipe = tiny_recipe("nice-tiny", dataset, *sets, steps=8, validate_every=2, log_every=2, samples=0)
        train(recipe, base / "runs" / name, device="cpu", progress=False)
    return base / "runs"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], standalone_mode=False)
    assert result.exception is None, result.output
    return result.stdout


def test_a_comparison_has_the_fields_that_differ_and_the_best(runs: Path) -> None:
    found = compare_runs([runs / "first", runs / "second"])
    assert [run["run"] for run in found["runs"]] == ["first", "second"]
    assert found["differences"] == {
        "optimizer.name": ["adam", "SGD"],
        "optimizer.lr": [0.001, 0.01],
        "optimizer.betas": [[0.9, 0.999], None],
        "optimizer.eps": [1e-8, None],
        "optimizer.momentum": [None, 0.5],
    }
    for run, name in zip(found["runs"], ("first", "second"), strict=True):
        rows = [row for row in RunDir(runs / name).rows() if row["kind"] == "valid"]
        assert run["best_bpd"] == min(row["bpd"] for row in rows)
    assert compare_runs([runs])["differences"].keys() == found["differences"].keys()


def test_the_table_and_the_json_say_the_same(runs: Path) -> None:
    text = call("runs", runs / "first", runs / "second")
    lines = [line.split("  ") for line in text.splitlines()]
    cells = {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    found = json.loads(call("runs", runs / "first", runs / "second", "--json"))
    assert cells["run"] == ["first", "second"]
    assert cells["best"] == [f"{run['best_bpd']:.4f} bits/dim" for run in found["runs"]]
    assert cells["optimizer.lr"] == ["0.001", "0.01"]
    assert cells["optimizer.momentum"] == ["-", "0.5"]
    assert "train.steps" not in cells


def test_equal_runs_are_said_to_be_equal_and_told_apart_by_their_paths(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "first", tmp_path / "copy" / "first")
    result = CliRunner().invoke(cli, ["runs", str(runs / "first"), str(tmp_path / "copy" / "first")])
    assert "are the same" in result.stderr
    assert result.stdout.splitlines()[0].split()[1:] == ["runs/first", "copy/first"]


def test_the_curves_of_all_are_in_one_picture(runs: Path, tmp_path: Path) -> None:
    picture = tmp_path / "both.png"
    text = call("runs", runs, "--plot", picture)
    assert "first" in text
    with Image.open(picture) as image:
        colours = {colour for _, colour in image.getcolors(1 << 20) or []}
    assert {MANY_COLOURS[0], MANY_COLOURS[1]} <= colours
    assert MANY_COLOURS[2] not in colours


def edited(runs: Path, to: Path, section: str, **keys: Any) -> Path:
    """A copy of the first run, whose recipe has other keys."""
    shutil.copytree(runs / "first", to)
    header = json.loads((to / "run.json").read_text())
    header["recipe"][section] |= keys
    (to / "run.json").write_text(json.dumps(header))
    return to


def test_a_loss_that_is_no_likelihood_is_not_drawn_among_bits(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = edited(runs, tmp_path / "other", "train", objective="squared")
    drawn: dict[str, set[str]] = {}

    def draw(rows: Any, path: Path, unit: str) -> None:
        drawn.update({name: {row["kind"] for row in own} for name, own in rows})

    monkeypatch.setattr("flowzoo.analysis.curves.save_comparison", draw)
    plot_runs(compare_runs([runs / "first", other])["runs"], tmp_path / "both.png")
    assert drawn == {"first": {"train", "valid"}, "other": {"valid"}}


def test_a_key_without_a_value_is_as_good_as_none(runs: Path, tmp_path: Path) -> None:
    other = edited(runs, tmp_path / "other", "optimizer", nothing=None)
    assert compare_runs([runs / "first", other])["differences"] == {}


def test_bits_and_nats_are_not_drawn_together(runs: Path, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = compare_runs([runs])["runs"]
    found[0]["unit"] = "nats/dim"
    with pytest.raises(InputError, match=r"some in bits/dim and some in nats/dim|bits/dim and some"):
        plot_runs(found, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_what_is_no_run_is_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("[")
    for name, code, words in (("empty", 8, "holds no training run"), ("broken", 9, "cannot be read")):
        with pytest.raises(SystemExit) as caught:
            main(["runs", str(runs / "first"), str(tmp_path / name)])
        out, err = capsys.readouterr()
        assert (caught.value.code, out) == (code, "")
        assert words in err
    with pytest.raises(SystemExit) as caught:
        main(["runs", str(runs), "--plot", str(tmp_path / "curve.jpg")])
    assert caught.value.code == 2


def test_a_run_that_has_ended_is_extended_by_so_many_updates(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "first", tmp_path / "run")
    run = RunDir(tmp_path / "run")
    found = json.loads(call("train", "--out", run.path, "--extend", 6, "--device", "cpu", "--json"))
    assert (found["state"], found["step"]) == ("finished", 14)
    assert run.header()["extended"] == [{"step": 8, "steps": 8}]
    rates = {row["step"] - 1: row["lr"] for row in run.rows() if row["kind"] == "train"}
    recipe = run.recipe()
    for step in (9, 11, 13):
        assert rates[step] == pytest.approx(recipe.optimizer.lr * lr_factor(recipe.schedule, step, 14))
    # A cosine that had nearly fallen to 0 has risen again.
    assert rates[9] > rates[7]


def test_a_run_with_updates_to_go_is_not_extended(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RunDir(runs / "first").recipe()
    train(recipe, tmp_path / "run", device="cpu", progress=False, max_seconds=0)
    with pytest.raises(InputError, match="has done 0 of 8 updates"):
        longer_recipe(tmp_path / "run", 5)
    with pytest.raises(InputError, match="extend is 0"):
        longer_recipe(runs / "first", 0)
    with pytest.raises(CheckpointError, match="holds no training run"):
        longer_recipe(tmp_path / "nowhere", 5)
    for extra in (["nice-tiny"], ["--set", "train.steps=9"], ["--dry-run"]):
        with pytest.raises(SystemExit) as caught:
            main(["train", *extra, "--out", str(runs / "first"), "--extend", "5"])
        assert caught.value.code == 2
        capsys.readouterr()
