"""A training on request: TensorBoard events, torch.compile, small batches and little memory."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from flowzoo.data import TrainBatches
from flowzoo.errors import ConfigError
from flowzoo.training.export import run_summary
from flowzoo.training.run_dir import RunDir
from flowzoo.training.step import GradientStep
from flowzoo.training.train import build_model, train, train_flow
from tests.trainings import CPU, image_set, save_images, tiny_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

IMAGES = (image_set(160), image_set(40, seed=1))


def run_training(out: Path, *settings: str, **options: Any) -> None:
    recipe = tiny_recipe("glow-tiny", "made-up", *settings)
    train_flow(build_model(recipe), recipe, out, IMAGES, CPU, progress=False, **options)


def test_tensorboard_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"flowzoo\[tensorboard\]"):
        run_training(tmp_path / "run", tensorboard=True)


def test_tensorboard_gets_every_number_once_across_sessions(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_training(tmp_path / "run", max_seconds=0, tensorboard=True)
    run_training(tmp_path / "run", tensorboard=True)
    events = reading.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = RunDir(tmp_path / "run").rows()
    for kind, key in (("train", "loss"), ("train", "lr"), ("valid", "bpd")):
        wanted = [(row["step"], row[key]) for row in rows if row["kind"] == kind]
        found = [(event.step, event.value) for event in events.Scalars(f"{kind}/{key}")]
        assert [step for step, _ in found] == [step for step, _ in wanted]
        assert [value for _, value in found] == pytest.approx([value for _, value in wanted], rel=1e-6)


def gradients(compiled: bool) -> tuple[float, list[Tensor]]:
    recipe = tiny_recipe("nice-tiny", "made-up", f"train.compile={str(compiled).lower()}")
    flow = build_model(recipe).train()
    found = GradientStep(flow, recipe.train, CPU)(next(TrainBatches(IMAGES[0], 16, 0)))
    return found.loss, [p.grad for p in flow.parameters() if p.grad is not None]


# Without generated code, which takes half a minute; tests/testing/test_capabilities.py has it of small models.
def test_a_compiled_step_has_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Mock(side_effect=partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(torch, "compile", traced)
    (loss, plain), (compiled_loss, compiled) = gradients(False), gradients(True)
    traced.assert_called_once()
    assert compiled_loss == pytest.approx(loss, abs=1e-5)
    for mine, theirs in zip(compiled, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_run_that_starts_from_another_counts_its_cost(tmp_path: Path) -> None:
    for name, before in (("first", None), ("second", {"seconds": 7.5, "images": 30, "step": 3})):
        run = tmp_path / name
        run.mkdir()
        header = {"kind": "header", "before": before, "total_steps": 3}
        (run / "run.json").write_text(json.dumps(header))
        row = {"kind": "valid", "step": 3, "bpd": 5.0, "seconds": 7.5, "images": 30}
        (run / "metrics.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(row)}\n")
    assert RunDir(tmp_path / "first").cost() == {"seconds": 7.5, "images": 30, "step": 3}
    assert RunDir(tmp_path / "second").cost() == {"seconds": 15.0, "images": 60, "step": 6}
    summary = run_summary(tmp_path / "second")
    assert (summary["images"], summary["best_step"]) == (60, 6)


def test_history_and_cost_count_the_runs_before(tmp_path: Path) -> None:
    recipe = tiny_recipe("glow-tiny", save_images(tmp_path / "images.npy"))
    runs = [RunDir(tmp_path / name) for name in ("first", "second", "third")]
    for run, before in zip(runs, (None, *runs), strict=False):
        train(recipe, run.path, device="cpu", progress=False, init_from=before and before.path)
    first, third = runs[0].history(), runs[2].history()
    begun = [row["images"] for row in third if row["kind"] == "stage"]
    assert begun == [run.cost()["images"] for run in runs[:2]], "where the second and the third began"
    assert len(third) == 3 * len(first) + len(begun)
    assert third[: len(first)] == first
    for key in ("step", "images", "seconds"):
        values = [row[key] for row in third]
        assert values == sorted(values)
        assert values[-1] <= runs[2].cost()[key]
    assert runs[2].cost()["images"] == 3 * runs[0].cost()["images"]
    for path in [run.path for run in runs[:2]]:
        shutil.rmtree(path)
    assert runs[2].history() == third


def test_accumulation_and_recomputation_change_nothing_but_rounding(tmp_path: Path) -> None:
    # Adam divides by the gradient's size: without a large epsilon it makes rounding errors of tiny ones large.
    ways = ("memory=store", "accumulate=4", "memory=checkpoint", "memory=invertible")
    for way in ways:
        run_training(tmp_path / way, "optimizer.eps=1e-3", f"train.{way}")
    expected, *others = (load_file(RunDir(tmp_path / way).last) for way in ways)
    for other in others:
        for key, tensor in other.items():
            torch.testing.assert_close(tensor, expected[key], rtol=1e-4, atol=1e-5, msg=key)
