"""Going on with a run: same images, same model, one process; other surroundings are said, more steps allowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from flowzoo.errors import CheckpointError, ConfigError, InputError
from flowzoo.training.lock import LOCK
from flowzoo.training.run_dir import RunDir
from flowzoo.training.schedules import lr_factor
from flowzoo.training.train import build_model, train, train_flow
from tests.trainings import CPU, image_set, save_images, tiny_recipe

if TYPE_CHECKING:
    from flowzoo.training.loop import Outcome
    from flowzoo.training.recipe import Recipe

IMAGES = (image_set(160), image_set(40, seed=1))


def go(out: Path, recipe: Recipe, **options: Any) -> Outcome:
    return train_flow(build_model(recipe), recipe, out, IMAGES, CPU, progress=False, **options)


def go_on_own_images(out: Path, dataset: str, **options: Any) -> Outcome:
    return train(
        tiny_recipe("glow-tiny", dataset, samples=0),
        out,
        device="cpu",
        progress=False,
        max_seconds=0,
        **options,
    )


def edit_header(out: Path, **changes: Any) -> None:
    path = out / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- images ------------------------------------------------------------------------------------------------


def test_a_run_records_its_images(tmp_path: Path) -> None:
    dataset = save_images(tmp_path / "images.npy")
    go_on_own_images(tmp_path / "run", dataset)
    found = RunDir(tmp_path / "run").header()["data"]["training"]
    assert found["path"] == str(tmp_path / "images.npy")
    assert (found["number"], found["shape"], found["split"]) == (160, [1, 8, 8], "train")
    assert len(found["sha256"]) == 64


def test_a_file_written_anew_is_noticed(tmp_path: Path) -> None:
    dataset = save_images(tmp_path / "images.npy")
    go_on_own_images(tmp_path / "run", dataset)
    save_images(tmp_path / "images.npy", seed=5)
    with pytest.raises(InputError, match=r"other training images: sha256 was .*, is "):
        go_on_own_images(tmp_path / "run", dataset)
    save_images(tmp_path / "images.npy", 210)
    with pytest.raises(InputError, match="number was 160, is 168"):
        go_on_own_images(tmp_path / "run", dataset)
    save_images(tmp_path / "images.npy")
    assert go_on_own_images(tmp_path / "run", dataset).state == "out of time"


def test_a_relative_path_seen_from_elsewhere_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, count in (("here", 200), ("there", 300)):
        (tmp_path / place).mkdir()
        save_images(tmp_path / place / "images.npy", count)
    monkeypatch.chdir(tmp_path / "here")
    go_on_own_images(tmp_path / "run", "numpy:images.npy")
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(InputError) as caught:
        go_on_own_images(tmp_path / "run", "numpy:images.npy")
    assert str(tmp_path / "here" / "images.npy") in str(caught.value)
    assert str(tmp_path / "there" / "images.npy") in str(caught.value)


# --- model, surroundings, one process ----------------------------------------------------------------------


def test_a_run_of_another_model_or_schema_is_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe(samples=0)
    go(tmp_path, recipe, max_seconds=0)
    sound = RunDir(tmp_path).header()
    edit_header(tmp_path, config=sound["config"] | {"depth": 77})
    with pytest.raises(ConfigError, match=r"another model: .*77"):
        go(tmp_path, recipe, max_seconds=0)
    edit_header(tmp_path, **sound)
    edit_header(tmp_path, architecture="nice")
    with pytest.raises(ConfigError, match=r"architecture 'nice'"):
        go(tmp_path, recipe, max_seconds=0)
    edit_header(tmp_path, **sound | {"schema": 2})
    with pytest.raises(CheckpointError, match="schema 2; this flowzoo reads 1"):
        go(tmp_path, recipe, max_seconds=0)


def test_other_surroundings_are_said_and_written_down(tmp_path: Path) -> None:
    recipe, said = tiny_recipe(samples=0), list[str]()
    go(tmp_path, recipe, max_seconds=0, say=said.append)
    go(tmp_path, recipe, max_seconds=0, say=said.append)
    assert not any("surroundings" in line for line in said)
    before = RunDir(tmp_path).header()
    edit_header(
        tmp_path,
        environment=before["environment"] | {"threads": torch.get_num_threads() + 7},
        versions=before["versions"] | {"torch": "1.0"},
    )
    go(tmp_path, recipe, max_seconds=0, say=said.append)
    [line] = [line for line in said if "surroundings" in line]
    threads = f"threads was {torch.get_num_threads() + 7}, is {torch.get_num_threads()}"
    assert threads in line
    assert f"torch was 1.0, is {torch.__version__}" in line
    [row] = [row for row in RunDir(tmp_path).rows() if row["kind"] == "resumed"]
    assert threads in row["changed"]


def test_the_header_says_whether_the_engine_was_on(tmp_path: Path) -> None:
    go(tmp_path, tiny_recipe(samples=0), max_seconds=0)
    header = RunDir(tmp_path).header()
    try:
        from flowzoo.engine import is_enabled
    except ImportError:
        assert header["engine"] is None
    else:
        assert header["engine"] is is_enabled()


HOLDER = """
import sys, time
from pathlib import Path
from flowzoo.training.lock import only_training
with only_training(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"being trained in by process {process.pid} on "):
            go(tmp_path, tiny_recipe(samples=0), max_seconds=0)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    finally:
        process.kill()  # as by a crash: nothing has to be removed by hand
        process.wait()
    assert go(tmp_path, tiny_recipe(samples=0), max_seconds=0).step == 0
    assert (tmp_path / LOCK).read_text() == ""


# --- precision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("units", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_is_decided_once(
    units: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, said = tiny_recipe(precision="auto", samples=0), list[str]()
    monkeypatch.setattr("flowzoo.training.opening.has_bfloat16_units", lambda _: units)
    go(tmp_path / "auto", recipe, max_seconds=0, say=said.append)
    assert any(line.startswith(f"precision = auto: the networks run in {expected}") for line in said)
    assert RunDir(tmp_path / "auto").recipe().train.precision == expected
    monkeypatch.setattr("flowzoo.training.opening.has_bfloat16_units", lambda _: not units)
    go(tmp_path / "auto", recipe, say=said.append)
    assert RunDir(tmp_path / "auto").recipe().train.precision == expected
    assert any("no units" in line for line in said) is (expected == "bfloat16")
    go(tmp_path / "fixed", tiny_recipe(precision=expected, samples=0))
    assert RunDir(tmp_path / "auto").last.read_bytes() == RunDir(tmp_path / "fixed").last.read_bytes()


# --- longer ------------------------------------------------------------------------------------------------


def test_a_longer_training_is_the_one_that_was_longer_from_the_start(tmp_path: Path) -> None:
    """With a constant rate; any other schedule depends on the length."""
    constant = ["schedule.1.kind=constant"]
    short, long = (
        tiny_recipe("glow-tiny", "made-up", *constant, steps=steps, samples=0) for steps in (12, 18)
    )
    go(tmp_path / "grown", short)
    assert go(tmp_path / "grown", long).step == 18
    go(tmp_path / "whole", long)
    assert RunDir(tmp_path / "grown").last.read_bytes() == RunDir(tmp_path / "whole").last.read_bytes()
    header = RunDir(tmp_path / "grown").header()
    assert (header["total_steps"], header["extended"]) == (18, [{"step": 12, "steps": 12}])
    assert header["recipe"]["train"]["steps"] == 18
    with pytest.raises(ConfigError, match="can only grow"):
        go(tmp_path / "grown", short)


def test_each_step_keeps_the_rate_that_it_had(tmp_path: Path) -> None:
    short, long = (tiny_recipe(steps=steps, samples=0, log_every=1, checkpoint_every=3) for steps in (12, 20))
    go(tmp_path, short)
    go(tmp_path, long, max_seconds=0)
    run = RunDir(tmp_path)
    for path in sorted(run.checkpoints.iterdir())[1:]:
        (path / "state.json").write_text("{")  # so that steps before the extension are repeated
    go(tmp_path, long)
    rates = {row["step"] - 1: row["lr"] for row in run.rows() if row["kind"] == "train"}
    expected = {s: 1e-3 * lr_factor(long.schedule, s, 12 if s < 12 else 20) for s in range(20)}
    assert rates == pytest.approx(expected)


def test_a_run_ended_before_its_first_checkpoint_does_not_forget_its_start(tmp_path: Path) -> None:
    recipe = tiny_recipe("glow-tiny", save_images(tmp_path / "images.npy"), samples=0)
    options: dict[str, Any] = {"device": "cpu", "progress": False}
    train(recipe, tmp_path / "first", **options)
    train(recipe, tmp_path / "whole", init_from=tmp_path / "first", **options)
    train(recipe, tmp_path / "second", init_from=tmp_path / "first", max_seconds=0, **options)
    for path in RunDir(tmp_path / "second").checkpoints.iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    with pytest.raises(ConfigError, match="give --init-from again"):
        train(recipe, tmp_path / "second", **options)
    train(recipe, tmp_path / "second", init_from=tmp_path / "first", **options)
    assert RunDir(tmp_path / "second").last.read_bytes() == RunDir(tmp_path / "whole").last.read_bytes()
