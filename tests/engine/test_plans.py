"""Plans are made once, made anew where something has changed, and hold no values outside ``frozen``."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import Tensor

import flowzoo
from flowzoo import engine as engine_module
from flowzoo.bijectors import AffineCoupling, ScaleMap
from flowzoo.engine import disabled
from flowzoo.flow import Flow
from flowzoo.testing import random_images, randomize


@pytest.fixture
def flow() -> Flow:
    torch.manual_seed(0)
    return randomize(flowzoo.create("glow-tiny"), seed=1, scale=0.05).eval()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that grows with every plan that is made."""
    found: list[object] = []
    original = engine_module.make_plan

    def counted(*args: object, **kwargs: object) -> object:
        found.append(args)
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_module, "make_plan", counted)
    return found


def value(flow: Flow) -> Tensor:
    noise = torch.full((4, *flow.image_shape), 0.5)
    return flow.log_prob(random_images(flow, 4, seed=0), noise=noise)


def assert_plain(flow: Flow, tolerance: float = 1e-4) -> None:
    found = value(flow)
    with disabled():
        torch.testing.assert_close(found, value(flow), rtol=tolerance, atol=1e-3)


def test_a_training_step_plans_nothing_anew(flow: Flow, made: list[object]) -> None:
    optimizer = torch.optim.Adam(flow.train().parameters(), lr=1e-3)
    counts = []
    for _ in range(4):
        optimizer.zero_grad()
        value(flow).sum().neg().backward()
        optimizer.step()
        counts.append(len(made))
    assert counts[0] > 0
    assert counts[-1] == counts[0]
    assert_plain(flow)


CHANGES = ["memory", "order", "network_dtype", "submodule", "partition", "scale map's name", "mode"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_planned_anew(change: str, flow: Flow, made: list[object]) -> None:
    value(flow)
    count = len(made)
    coupling = next(m for m in flow.modules() if isinstance(m, AffineCoupling))
    if change == "memory":
        flow.set_memory("invertible")
    elif change == "order":
        coupling.order = "scale-shift"
    elif change == "network_dtype":
        flow.set_network_dtype(torch.bfloat16)
    elif change == "submodule":
        coupling.scale_map = ScaleMap("clamp2", 6)
    elif change == "partition":
        coupling.partition = coupling.partition.complement()
    elif change == "scale map's name":
        coupling.scale_map.name = "clamp2"
    else:
        flow.train()
    value(flow)
    assert len(made) > count
    assert_plain(flow, 0.05 if change == "network_dtype" else 1e-4)


@torch.no_grad()
def test_frozen_keeps_values_and_leaving_it_drops_them(flow: Flow) -> None:
    before = value(flow)
    with flow.frozen():
        kept = value(flow)
        with flow.frozen():
            value(flow)
        weight = next(m for m in flow.modules() if isinstance(m, AffineCoupling)).net.first.conv.weight
        weight.mul_(2)
        assert torch.equal(value(flow), kept)
    torch.testing.assert_close(kept, before, rtol=1e-5, atol=1e-3)
    assert not torch.equal(value(flow), before)
    assert_plain(flow)


@torch.no_grad()
def test_a_hook_registered_inside_frozen_is_called(flow: Flow) -> None:
    calls: list[object] = []
    with flow.frozen():
        before = value(flow)
        layer = next(m for m in flow.modules() if isinstance(m, AffineCoupling)).net.first
        handle = layer.register_forward_hook(lambda *_: calls.append(None))
        watched = value(flow)
        handle.remove()
        assert torch.equal(value(flow), before)
    assert len(calls) == 1
    torch.testing.assert_close(watched, before, rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_weights_changed_outside_frozen_count_at_once(flow: Flow) -> None:
    before = value(flow)
    for parameter in list(flow.parameters())[::5]:
        parameter.add_(0.01)
        assert_plain(flow)
        parameter.data = parameter.data + 0.01
        assert_plain(flow)
    assert not torch.equal(before, value(flow))


def test_threads_compute_what_one_does(flow: Flow) -> None:
    expected, found = value(flow).detach(), list[Tensor]()

    def work() -> None:
        with torch.no_grad(), flow.frozen():
            found.extend(value(flow) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    for one in found:
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_follow_their_own_weights(way: str, flow: Flow) -> None:
    before = value(flow)
    other = copy.deepcopy(flow) if way == "deepcopy" else pickle.loads(pickle.dumps(flow))
    assert other.engine is not flow.engine
    for parameter in other.parameters():
        parameter.add_(0.01)
    assert_plain(other)
    assert torch.equal(value(flow), before)
    assert not torch.equal(value(other), before)
