"""An update that does not fit into memory ends in one line that names the batch to try."""

from __future__ import annotations

import contextlib
import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch

from flowzoo.data import TrainBatches
from flowzoo.errors import OutOfMemory, exhausted
from flowzoo.training.step import GradientStep
from flowzoo.training.train import build_model
from tests.trainings import CPU, image_set, tiny_recipe


def step_and_batch(most: int, **train: Any) -> tuple[GradientStep, Any]:
    """A step on a machine on which more than so many images at once do not fit."""
    recipe = tiny_recipe(**train)
    flow = build_model(recipe)

    def refuse(module: Any, given: Any) -> None:
        if len(given[0]) > most:
            torch.empty(2**62, dtype=torch.uint8)

    flow.register_forward_pre_hook(refuse)
    batch = next(TrainBatches(image_set(64), recipe.train.batch_size, 0))
    return GradientStep(flow, recipe.train, CPU), batch


def test_the_line_names_what_fits() -> None:
    step, batch = step_and_batch(most=8, batch_size=16)
    with pytest.raises(OutOfMemory, match=r"train\.accumulate=2, which computes 8 at a time") as caught:
        step(batch)
    line = str(caught.value)
    assert "16 images at once" in line
    assert "train.memory=invertible" in line
    assert len(line.splitlines()) == 1
    assert caught.value.exit_code == 8
    step.recipe = replace(step.recipe, accumulate=2)
    assert step(batch).finite


def test_nothing_is_left_behind() -> None:
    step, batch = step_and_batch(most=8, batch_size=16)
    with pytest.raises(OutOfMemory) as caught:
        step(batch)
    assert all(p.grad is None for p in step.flow.parameters())
    # An error that is kept, as a notebook does, holds no tensors of the step.
    assert caught.value.__context__ is None


def test_the_steps_tensors_are_gone_before_the_collector_comes() -> None:
    """A GPU's memory waits for no collector: the next, smaller batch needs it at once."""
    step, batch = step_and_batch(most=16, batch_size=16)
    alive: list[weakref.ref[torch.Tensor]] = []

    def keep_then_refuse(module: Any, given: Any, made: torch.Tensor) -> None:
        alive.append(weakref.ref(made))
        torch.empty(2**62, dtype=torch.uint8)

    step.flow.bijector.register_forward_hook(
        lambda module, given, made: keep_then_refuse(module, given, made[0])
    )
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(OutOfMemory):
            step(batch)
        assert [ref() for ref in alive] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "expected"),
    [(12, 1, "train.accumulate=2,"), (12, 2, "train.accumulate=4,"), (15, 1, "train.accumulate=3,"),
     (15, 5, "train.accumulate=15,"), (7, 1, "train.accumulate=7,"), (4, 4, "smaller model")],
)  # fmt: skip
def test_parts_are_of_one_size(batch_size: int, accumulate: int, expected: str) -> None:
    step, batch = step_and_batch(most=0, batch_size=batch_size, accumulate=accumulate)
    with pytest.raises(OutOfMemory) as caught:
        step(batch)
    assert expected in str(caught.value)


def test_inversion_is_not_recommended_to_those_who_have_it() -> None:
    step, batch = step_and_batch(most=0, batch_size=16, memory="invertible")
    with pytest.raises(OutOfMemory) as caught:
        step(batch)
    assert "memory=invertible" not in str(caught.value)


def test_the_error_of_a_gpu_counts_and_others_do_not() -> None:
    assert exhausted(torch.OutOfMemoryError("CUDA out of memory.")) == "memory"
    for words in (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
    ):
        assert exhausted(RuntimeError(words)) == "memory"
    assert exhausted(RuntimeError("CUDA error: invalid device ordinal")) is None
    step, batch = step_and_batch(most=16, batch_size=16)

    def break_down(module: Any, given: Any) -> None:
        raise RuntimeError("something else")

    step.flow.register_forward_pre_hook(break_down)
    with pytest.raises(RuntimeError, match="something else"):
        step(batch)
