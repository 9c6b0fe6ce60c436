"""The cause of a bad update is the path that failed: a layer, a fused operation, a gradient, or neither."""

from __future__ import annotations

import contextlib
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
import torch

from flowzoo.data import TrainBatches
from flowzoo.evaluation.noise import derive_seed
from flowzoo.training.diagnose import diagnose
from flowzoo.training.step import GradientStep
from flowzoo.training.train import build_model
from tests.trainings import CPU, image_set, tiny_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from flowzoo.flow import Flow

IMAGES = image_set(64)
NAN = float("nan")


class Engine(types.ModuleType):
    """A stand-in for ``flowzoo.engine`` with its switch alone."""

    def __init__(self) -> None:
        super().__init__("flowzoo.engine")
        self.on = True

    def is_enabled(self) -> bool:
        return self.on

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        self.on = False
        try:
            yield
        finally:
            self.on = True


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine()
    monkeypatch.setitem(sys.modules, "flowzoo.engine", found)
    return found


def prepared(name: str = "glow-tiny") -> tuple[Flow, GradientStep, Any]:
    recipe = tiny_recipe(name)
    flow = build_model(recipe)
    flow.initialize(IMAGES[:32], generator=torch.Generator().manual_seed(0))
    step = GradientStep(flow.train(), recipe.train, CPU)
    return flow, step, next(TrainBatches(IMAGES, 16, 0))


def spoil_output(flow: Flow, when: Callable[[], bool]) -> None:
    """Makes the log-probabilities of the whole flow NaN; as a fused pass would, below every layer."""
    whole = flow.base.log_prob

    def log_prob(z: Tensor) -> Tensor:
        return whole(z) * (NAN if when() else 1.0)

    flow.base.log_prob = log_prob  # type: ignore[method-assign]


def layer_of(flow: Flow) -> tuple[str, nn.Module]:
    return next((name, m) for name, m in flow.named_modules() if name.endswith("net.first"))


def test_a_weight(engine: Engine) -> None:
    flow, step, batch = prepared()
    name, parameter = next(iter(flow.named_parameters()))
    with torch.no_grad():
        parameter.fill_(NAN)
    assert diagnose(step, batch).startswith(f"the parameter {name!r} is not finite any more")


def test_a_layer(engine: Engine) -> None:
    flow, step, batch = prepared()
    name, layer = layer_of(flow)
    layer.register_forward_hook(lambda module, inputs, output: output * NAN)
    assert diagnose(step, batch).startswith(f"the first offending layer is {name!r} (")


def test_a_fused_operation_is_not_the_hardware_s_fault(engine: Engine) -> None:
    flow, step, batch = prepared()
    spoil_output(flow, engine.is_enabled)
    found = diagnose(step, batch)
    assert "computed again as in training, the loss, nan, is not finite; layer by layer," in found
    assert "FLOWZOO_ENGINE=0" in found
    assert "hardware" not in found
    assert engine.on


def test_a_fused_gradient(engine: Engine) -> None:
    flow, step, batch = prepared()
    name, parameter = next((n, p) for n, p in flow.named_parameters() if "net.first" in n)
    parameter.register_hook(lambda gradient: gradient * (NAN if engine.on else 1.0))
    found = diagnose(step, batch)
    assert f"the gradient of {name!r}" in found
    assert "a fused or compiled operation is at fault" in found


def test_a_gradient_of_the_model_itself(engine: Engine) -> None:
    flow, step, batch = prepared()
    parameter = next(p for n, p in flow.named_parameters() if "net.first" in n)
    parameter.register_hook(lambda gradient: gradient * NAN)
    found = diagnose(step, batch)
    assert found.startswith("the forward pass is finite; the first offending gradient on the way back")


@pytest.mark.parametrize("name", ["glow-tiny", "realnvp-tiny", "flowpp-tiny"])
def test_neither_and_running_statistics_stay_where_they_were(engine: Engine, name: str) -> None:
    flow, step, batch = prepared(name)
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    assert "both as in training and layer by layer" in diagnose(step, batch)
    torch.testing.assert_close(flow.state_dict(), before, rtol=0, atol=0)


def test_dropout_is_drawn_as_in_training(engine: Engine) -> None:
    flow, step, batch = prepared()
    _, layer = layer_of(flow)
    seeds: set[int] = set()
    layer.register_forward_hook(lambda *_: seeds.add(torch.initial_seed()))
    diagnose(step, batch)
    assert seeds == {derive_seed(0, batch.step, "layers", 0)}


def test_without_an_engine_it_works_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flowzoo.engine", None)
    _, step, batch = prepared()
    assert "layer by layer" in diagnose(step, batch)
