"""Callbacks: when they are called, what they may do, and what becomes of their faults."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest
import torch

from flowzoo.errors import CallbackError, InputError
from flowzoo.training.callbacks import Callback, Training
from flowzoo.training.run_dir import RunDir
from flowzoo.training.state import list_checkpoints, load_checkpoint
from flowzoo.training.train import build_model, train_flow
from tests.trainings import CPU, image_set, tiny_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowzoo.training.loop import Outcome

IMAGES = (image_set(160), image_set(40, seed=1))


def run_training(out: Path, *callbacks: Any, **options: Any) -> Outcome:
    recipe = tiny_recipe("nice-tiny", steps=8, validate_every=4, log_every=2, samples=0)
    return train_flow(
        build_model(recipe), recipe, out, IMAGES, CPU, progress=False, callbacks=callbacks, **options
    )


def weights(out: Path) -> tuple[bytes, bytes]:
    return RunDir(out).best.read_bytes(), RunDir(out).last.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("callbacks") / "whole"
    assert run_training(out).state == "finished"
    return out


class Witness(Callback):
    """Writes down every call, and does what a callback may do between two updates."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.rows: list[dict[str, Any]] = []

    def on_start(self, training: Training) -> None:
        self.calls.append(("start", training.step))

    def on_step(self, training: Training) -> None:
        self.calls.append(("step", training.step))
        training.flow.eval()
        torch.manual_seed(1)
        training.flow.sample(1, batch_size=1)
        training.log(double=2 * training.loss, wide=torch.tensor(training.lr))

    def on_validation(self, training: Training) -> None:
        assert training.validation is not None
        assert training.unit == "bits/dim"
        self.calls.append(("validation", training.step))
        training.log(error=training.validation.stderr)

    def on_row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def on_end(self, training: Training) -> None:
        self.calls.append((training.state, training.step))

    def close(self) -> None:
        self.calls.append(("close", -1))


def test_every_hook_is_called_and_numbers_are_written(tmp_path: Path, whole: Path) -> None:
    witness = Witness()
    run_training(tmp_path / "run", witness)
    steps = [("step", n) for n in range(1, 9)]
    first, second = ("validation", 4), ("validation", 8)
    assert witness.calls == [
        ("start", 0), *steps[:3], first, steps[3], *steps[4:7], second, steps[7], ("finished", 8), ("close", -1)
    ]  # fmt: skip
    rows = RunDir(tmp_path / "run").rows()
    assert witness.rows == [row for row in rows if row["kind"] != "header"]
    scalars = [row for row in rows if row["kind"] == "scalars"]
    assert [row["step"] for row in scalars if "double" in row] == list(range(1, 9))
    assert [row["step"] for row in scalars if "error" in row] == [4, 8]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    doubled = [row["double"] for row in scalars if "double" in row]
    assert sum(doubled[:2]) / 4 == pytest.approx(losses[0])
    # What it did between updates has moved nothing.
    assert weights(tmp_path / "run") == weights(whole)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, training: Training) -> None:
        if training.step == self.step:
            training.stop("enough")


def test_a_callback_stops_and_the_run_goes_on_as_if_it_had_not(tmp_path: Path, whole: Path) -> None:
    said = list[str]()
    outcome = run_training(tmp_path / "run", StopAt(5), say=said.append)
    assert (outcome.state, outcome.step) == ("stopped", 5)
    assert outcome.best is not None
    assert any("enough" in line for line in said)
    end = RunDir(tmp_path / "run").rows()[-1]
    assert (end["kind"], end["state"], end["reason"]) == ("end", "stopped", "enough")
    assert RunDir(tmp_path / "run").last.is_file()
    assert run_training(tmp_path / "run").state == "finished"
    assert weights(tmp_path / "run") == weights(whole)


class Faulty(Callback):
    """Fails once, in a hook, at a step."""

    def __init__(self, hook: str, step: int) -> None:
        self.hook, self.step, self.closed = hook, step, False
        setattr(self, hook, self.fail)

    def fail(self, seen: Any) -> None:
        step = seen.get("step") if isinstance(seen, dict) else seen.step
        if step == self.step:
            raise ZeroDivisionError("a fault\nof two lines")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("hook", "step"), [("on_start", 0), ("on_step", 4), ("on_validation", 4), ("on_row", 4), ("on_end", 8)]
)
def test_a_fault_is_one_line_after_a_checkpoint(hook: str, step: int, tmp_path: Path, whole: Path) -> None:
    faulty = Faulty(hook, step)
    with pytest.raises(CallbackError) as caught:
        run_training(tmp_path / "run", faulty)
    text = str(caught.value)
    assert (
        f"The callback Faulty failed in {hook} at step {step}: ZeroDivisionError: a fault of two lines"
        in text
    )
    assert "\n" not in text
    assert caught.value.exit_code == 9
    assert faulty.closed
    run = RunDir(tmp_path / "run")
    assert load_checkpoint(list_checkpoints(run.checkpoints)[0])[0].step == step
    run_training(tmp_path / "run")
    assert weights(tmp_path / "run") == weights(whole)
    for kind, key in (("train", "loss"), ("valid", "bpd")):
        found = [(row["step"], row[key]) for row in run.rows() if row["kind"] == kind]
        assert found == [(row["step"], row[key]) for row in RunDir(whole).rows() if row["kind"] == kind]


class Misspelt:
    def on_steps(self, training: Training) -> None: ...

    def on_step(self, training: Training) -> None: ...


@pytest.mark.parametrize("callback", [object(), Misspelt(), Witness, "tensorboard"])
def test_what_would_never_be_called_is_refused(callback: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"callbacks\[0\] is .*on_validation, on_row, on_end"):
        run_training(tmp_path / "run", callback)
    assert not (tmp_path / "run" / "run.json").exists()


def logging(**scalars: Any) -> Callback:
    class Logging(Callback):
        def on_step(self, training: Training) -> None:
            training.log(**scalars)

    return Logging()


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (lambda: logging(bpd=1.0), "a name that the training writes itself"),
        (lambda: logging(mine="text"), "mine = 'text'; expected a number"),
        (lambda: logging(mine=torch.zeros(2)), "expected a number"),
    ],
)
def test_only_numbers_of_other_names_are_logged(
    callback: Callable[[], Callback], words: str, tmp_path: Path
) -> None:
    with pytest.raises(CallbackError, match=words):
        run_training(tmp_path / "run", callback())


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    run_training(tmp_path / "run", logging(mine=float("nan")))
    found = [row["mine"] for row in RunDir(tmp_path / "run").rows() if row["kind"] == "scalars"]
    assert found == [None] * 8


def test_the_loggers_page_example_writes_a_table(tmp_path: Path) -> None:
    from tests.documents import blocks

    [block] = [b for b in blocks("python") if b.page == "docs/training.md" and "class CsvLogger" in b.text]
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)
    run_training(tmp_path / "run", StopAt(3), names["CsvLogger"]())
    run_training(tmp_path / "run", names["CsvLogger"]())
    with (tmp_path / "run" / "metrics.csv").open() as file:
        found = [
            (int(row["step"]), row["kind"], row["name"], float(row["value"])) for row in csv.DictReader(file)
        ]
    rows = RunDir(tmp_path / "run").rows()
    for kind, key in (("train", "loss"), ("train", "lr"), ("valid", "bpd")):
        wanted = [(row["step"], row[key]) for row in rows if row["kind"] == kind]
        mine = {step: value for step, k, name, value in found if (k, name) == (kind, key)}
        assert [(step, mine[step]) for step, _ in wanted] == wanted
