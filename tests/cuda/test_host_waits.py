"""No host synchronisation in a training step or a log_prob: tensors on the meta device stand for a GPU's."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowzoo import engine
from flowzoo.data.pipeline import Batch
from flowzoo.distributed import World
from flowzoo.engine import applies
from flowzoo.flow import Flow
from flowzoo.testing.conformance import CHECKS
from flowzoo.testing.randomize import random_labels
from flowzoo.testing.subject import Subject
from flowzoo.training import step
from flowzoo.training.ema import Ema
from flowzoo.training.optim import build_optimizer
from flowzoo.training.recipe import Optimizer, Train
from tests.first_party import PLUGINS
from tools.cuda.settings import Settings
from tools.cuda.trainings import training_step
from tools.cuda.waits import PRETENDED, HostWaits, pretend

TRAINING = Path(step.__file__)


@pytest.fixture(autouse=True)
def no_generator_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No random numbers are drawn there, foreach works as on a GPU, and the engine does not notice the watcher."""
    monkeypatch.setattr(step, "training_noise", lambda kind, shape, *_: torch.empty(shape, device=PRETENDED))
    monkeypatch.setattr(torch.nn.utils.clip_grad, "_device_has_foreach_support", lambda _: True)
    monkeypatch.setattr(applies, "_dispatch_mode_active", lambda: False)


# Residual flows iterate spectral norms to a tolerance, which the host has to look at.
UNWATCHED = [name for name in PLUGINS if name != "residual"]


def data(flow: Flow, n: int = 4) -> tuple[Tensor, Tensor | None]:
    dtype = torch.uint8 if flow.data_kind == "images" else torch.float32
    y = random_labels(flow, n)
    x = torch.empty(n, *flow.data_shape, dtype=dtype, device=PRETENDED)
    return x, None if y is None else y.to(PRETENDED)


def subject(name: str, memory: str = "store") -> Flow:
    flow = Subject(name).build(seed=1, dtype=torch.float32).train()
    flow.set_memory(memory)  # type: ignore[arg-type]
    pretend(flow)
    return flow


@pytest.mark.parametrize("engine_on", [True, False], ids=["engine", "plain"])
@pytest.mark.parametrize("name", UNWATCHED)
def test_a_training_step_waits_once_for_its_two_figures(name: str, engine_on: bool) -> None:
    flow = subject(name)
    x, y = data(flow)
    recipe = Train(steps=1, batch_size=4, clip_norm=1.0)
    gradients = step.GradientStep(flow, recipe, World(0, 1, PRETENDED), labels=y is not None)
    optimizer, ema = build_optimizer(Optimizer(), flow), Ema(flow, 0.9)
    with HostWaits() as waits, contextlib.nullcontext() if engine_on else engine.disabled():
        gradients(Batch(x, torch.arange(4), 0, 0, y))
        optimizer.step()
        ema.update(0)
    assert waits.mixed == []
    assert [place.place.partition(":")[0] for place in waits.found] == [str(TRAINING)], waits.found


def test_leaving_labels_out_waits_no_more() -> None:
    flow = Subject.variant("glow-tiny", classes=3).build(seed=1, dtype=torch.float32).train()
    pretend(flow)
    x, y = data(flow)
    assert y is not None
    recipe = Train(steps=1, batch_size=4, clip_norm=1.0, label_dropout=0.5)
    gradients = step.GradientStep(flow, recipe, World(0, 1, PRETENDED), labels=True)
    with HostWaits() as waits:
        gradients(Batch(x, torch.arange(4), 0, 0, y))
    assert len(waits.found) == 1, waits.found


def test_the_step_that_a_gpu_is_watched_in_is_built_before() -> None:
    step_there = training_step(Settings(PRETENDED.type), "glow")
    with HostWaits() as waits:
        step_there()
    assert waits.mixed == []
    assert [place.place.partition(":")[0] for place in waits.found] == [str(TRAINING)], waits.found


@pytest.mark.parametrize("memory", ["checkpoint", "invertible"])
@pytest.mark.parametrize("name", ["glow", "realnvp"])
def test_memory_modes_never_wait(name: str, memory: str) -> None:
    flow = subject(name, memory)
    x, _ = data(flow)
    with HostWaits() as waits:
        flow.log_prob(x, noise=torch.empty(x.shape, device=PRETENDED)).mean().backward()
    assert (waits.found, waits.mixed) == ([], [])


@pytest.mark.parametrize("engine_on", [True, False], ids=["engine", "plain"])
@pytest.mark.parametrize("name", UNWATCHED)
def test_log_prob_never_waits(name: str, engine_on: bool) -> None:
    flow = subject(name).eval()
    x, y = data(flow)
    noise = torch.empty(x.shape, device=PRETENDED)
    # With gradients off, labels and vectors are looked at once: a wrong one is the user's.
    looked = int(y is not None) + int(flow.data_kind == "vectors")
    with torch.no_grad(), HostWaits() as waits, contextlib.nullcontext() if engine_on else engine.disabled():
        found = flow.log_prob(x, y, noise=noise)
    assert (found.device, found.shape) == (PRETENDED, (4,))
    assert waits.mixed == []
    assert len(waits.found) == looked, waits.found


def test_the_count_sees_every_kind_of_wait() -> None:
    there = torch.empty(3, device=PRETENDED)
    waits = [
        lambda: float(there.sum()),
        lambda: bool((there > 0).any()),
        there.tolist,
        there.cpu,
        there.nonzero,
        lambda: there[there > 0],
        lambda: torch.equal(there, there),
        lambda: torch.ones(3).to(PRETENDED),
        lambda: torch.empty(3, device=PRETENDED).copy_(torch.ones(3)),
    ]
    for wait in waits:
        with HostWaits() as found:
            wait()
        assert len(found.found) == 1, found.found
        assert Path(__file__).name in found.found[0].place
    with HostWaits() as found:
        torch.ones(3).to(PRETENDED, non_blocking=True)
        there.add_(1.0).mul_(torch.tensor(2.0))
        torch.ones(3).sum().item()
    assert (found.found, found.mixed) == ([], [])


@pytest.mark.parametrize("check", ["weights changed count", "per-sample gradients"])
def test_conformance_makes_its_tensors_where_the_models_are(check: str) -> None:
    """Its numbers mean nothing there; what counts is that it fails by a number, not by tensors of two devices."""
    with HostWaits() as waits, pytest.raises(AssertionError, match=r"relative"):
        CHECKS[check](Subject("glow", PRETENDED))
    assert waits.mixed == []


def test_tensors_of_two_devices_are_noted() -> None:
    with HostWaits() as found, contextlib.suppress(RuntimeError):
        torch.empty(3, device=PRETENDED) + torch.ones(3)
    assert len(found.mixed) == 1
