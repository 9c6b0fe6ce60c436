"""A coupling as one operation, and what evaluation keeps of a model, equal the parts computed afresh."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from flowzoo.bijectors.affine import AffineOrder, ParameterLayout
from torch import Tensor

import flowzoo
from flowzoo.bijectors import (
    ActNorm,
    AffineCoupling,
    Bijector,
    Chain,
    ChannelHalves,
    InvertibleConv1x1,
    Partition,
    ScaleMap,
    ScaleMapName,
)
from flowzoo.flow import Flow
from flowzoo.nets.conv import ActNormConv2d, ConvNet
from flowzoo.testing import random_images, randomize
from tests.engine.test_fused import KINDS, draw


@contextmanager
def pulled_apart(net: ConvNet) -> Iterator[None]:
    """Hooks into a network, so that the coupling around it calls it, and it its layers."""
    handles = [layer.register_forward_hook(lambda *_: None) for layer in (net.first, net.second, net.last)]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("edge_bias", [False, True])
def test_a_fused_coupling_is_the_one_by_parts(
    kind: tuple[ScaleMapName, AffineOrder, ParameterLayout], swap: bool, edge_bias: bool
) -> None:
    name, order, layout = kind
    given = 2 if swap else 3
    net = ConvNet(given, 2 * (5 - given), 6, edge_bias=edge_bias)
    fused = AffineCoupling(ChannelHalves(swap), net, ScaleMap(name, 5 - given), order, layout).double()
    for index, parameter in enumerate(fused.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
    x = draw(3, 5, 4, 4)
    leaves = [x, *fused.parameters()]
    rebuilding = Chain(fused)
    rebuilding.set_memory("invertible")

    def derived(bijector: Bijector) -> list[Tensor]:
        z, log_det = bijector(x)
        loss = (z.square().sum((1, 2, 3)) * log_det).sum()
        return [z, log_det, *torch.autograd.grad(loss, leaves)]

    found = derived(fused)
    with pulled_apart(net):
        expected = derived(fused)
        rebuilt_apart = derived(rebuilding)
    for other in (expected, derived(rebuilding), rebuilt_apart):
        for a, b in zip(found, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        for coupling in (fused, fused.eval()):
            z, log_det = coupling(x)
            torch.testing.assert_close((z, log_det), tuple(found[:2]), rtol=1e-10, atol=1e-10)
            again, inverse_log_det = coupling.inverse(z)
            torch.testing.assert_close((again, inverse_log_det), (x, -log_det), rtol=1e-9, atol=1e-9)
    for bijector in (fused, rebuilding):
        one_by_one, at_once = (
            torch.autograd.functional.jacobian(lambda v, f=bijector: f(v)[0], x[:1], vectorize=vectorize)
            for vectorize in (False, True)
        )
        torch.testing.assert_close(one_by_one, at_once)


class EverySecondChannel(Partition):
    """Halves that are views, but no runs of channels."""

    has_views = True

    def views(self, x: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
        x = x.movedim(dim, 0)
        first, second = x[0::2].movedim(0, dim), x[1::2].movedim(0, dim)
        return (second, first) if self.swap else (first, second)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 0::2], x[:, 1::2]

    def _merge(self, first: Tensor, second: Tensor) -> Tensor:
        pairs = torch.stack((first, second), dim=2)
        return pairs.reshape(first.shape[0], -1, *first.shape[2:])


@pytest.mark.parametrize("swap", [False, True])
def test_a_fused_coupling_parts_as_its_partition_does(swap: bool) -> None:
    net = ConvNet(2, 4, 3, normalization="none")
    coupling = AffineCoupling(EverySecondChannel(swap), net, ScaleMap("sigmoid2", 2)).double()
    for parameter in coupling.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = draw(1, 4, 2, 2)
    with pulled_apart(net):
        expected = torch.autograd.functional.jacobian(lambda v: coupling(v)[0], x)
    for bijector, memory in (
        (coupling, "store"),
        (Chain(coupling), "store"),
        (Chain(coupling), "invertible"),
    ):
        if isinstance(bijector, Chain):
            bijector.set_memory(memory)  # type: ignore[arg-type]
        for vectorize in (False, True):
            found = torch.autograd.functional.jacobian(lambda v, f=bijector: f(v)[0], x, vectorize=vectorize)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_network_that_is_watched_is_called_inside_a_fused_coupling() -> None:
    flow = randomize(flowzoo.create("glow-tiny"), seed=1).eval()
    x, noise = random_images(flow, 2, seed=0), flow.draw_noise(2)
    calls = list[object]()
    with torch.no_grad():
        expected = flow.log_prob(x, noise=noise)
        for layer in (ConvNet, ActNormConv2d):
            watched = next(module for module in flow.modules() if isinstance(module, layer))
            handle = watched.register_forward_hook(lambda *call: calls.append(call[0]))
            torch.testing.assert_close(flow.log_prob(x, noise=noise), expected)
            handle.remove()
            assert calls.pop() is watched
            torch.testing.assert_close(flow.log_prob(x, noise=noise), expected)
            assert calls == []


def nudge(flow: Flow, how: str) -> None:
    convolution = next(module for module in flow.modules() if isinstance(module, ActNormConv2d))
    if how == "in place":
        convolution.bias.add_(0.1)
    elif how == "another parameter":
        convolution.bias = torch.nn.Parameter(convolution.bias + 0.1)
    elif how == "a state dict":
        flow.load_state_dict(
            {name: 1.1 * t if t.dtype.is_floating_point else t for name, t in flow.state_dict().items()}
        )
    else:
        index = next(i for i, m in enumerate(flow.bijector.bijectors) if isinstance(m, InvertibleConv1x1))
        other = InvertibleConv1x1(12, ActNorm((12,), 3.0))
        flow.bijector.bijectors[index] = other.eval()


@pytest.mark.parametrize("how", ["in place", "another parameter", "a state dict", "another module"])
@torch.no_grad()
def test_whatever_changes_in_evaluation_is_seen_at_once(how: str) -> None:
    flow = randomize(flowzoo.create("glow-tiny"), seed=1, scale=0.05).eval()
    x, noise = random_images(flow, 4, seed=0), flow.draw_noise(4)
    before = [flow.log_prob(x, noise=noise) for _ in range(3)][-1]
    nudge(flow, how)
    found = flow.log_prob(x, noise=noise)
    expected = copy.deepcopy(flow).log_prob(x, noise=noise)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, before)


@torch.no_grad()
def test_a_model_is_initialized_in_evaluation_after_it_was_used() -> None:
    flow, trained = flowzoo.create("glow-tiny"), flowzoo.create("glow-tiny")
    trained.load_state_dict(flow.state_dict())
    x, noise = random_images(flow, 8, seed=0), flow.draw_noise(8)
    flow.eval().log_prob(x, noise=noise)
    flow.initialize(x, noise=noise)
    trained.initialize(x, noise=noise)
    torch.testing.assert_close(flow.state_dict(), trained.state_dict())
    torch.testing.assert_close(flow.log_prob(x, noise=noise), trained.eval().log_prob(x, noise=noise))


class Halved(ConvNet):
    """A network that is not its convolutions alone."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return 0.5 * super().forward(x, context)


def test_a_network_that_is_more_than_its_convolutions_is_called() -> None:
    plain, halved = ConvNet(2, 4, 6), Halved(2, 4, 6)
    torch.nn.init.normal_(plain.last.conv.weight)
    halved.load_state_dict(plain.state_dict())
    patched = copy.deepcopy(plain)
    patched.forward = halved.forward  # type: ignore[method-assign]
    x = draw(2, 4, 4, 4, dtype=torch.float32).detach()
    outputs = [
        AffineCoupling(ChannelHalves(), net, ScaleMap("exp", 2))(x)[0] for net in (plain, halved, patched)
    ]
    assert not torch.allclose(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[2], outputs[1])


@pytest.mark.parametrize("train", ["through the inverse", "the network alone", "by inversion"])
def test_a_fused_optimizer_in_evaluation_leaves_nothing_stale(train: str) -> None:
    flow = randomize(flowzoo.create("glow-tiny"), seed=1, scale=0.05).eval()
    coupling = next(module for module in flow.modules() if isinstance(module, AffineCoupling))
    x = draw(2, 12, 4, 4, dtype=torch.float32).detach()
    images, noise = random_images(flow, 2, seed=0), flow.draw_noise(2)
    flow.set_memory("invertible" if train == "by inversion" else "store")
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2, fused=True)

    def evaluated() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return flow.log_prob(images, noise=noise), coupling(x)[0]

    for _ in range(3):
        evaluated()
        if train == "by inversion":
            loss = flow.log_prob(images, noise=noise).sum()
        elif train == "through the inverse":
            loss = coupling.inverse(x)[0].square().sum()
        else:
            loss = coupling.net(x[:, :6]).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found, fresh = evaluated(), copy.deepcopy(flow)
        with torch.no_grad():
            torch.testing.assert_close(found[0], fresh.log_prob(images, noise=noise))
        if train == "by inversion":
            expected = copy.deepcopy(fresh).train()
            expected.set_memory("invertible")
            torch.testing.assert_close(
                flow.log_prob(images, noise=noise),
                expected.log_prob(images, noise=noise),
                rtol=1e-4,
                atol=1e-3,
            )


@torch.no_grad()
def test_a_compiled_model_takes_nothing_kept_for_a_constant() -> None:
    flow = randomize(flowzoo.create("glow-tiny"), seed=1, scale=0.05).eval()
    x, noise = random_images(flow, 2, seed=0), flow.draw_noise(2)
    flow.log_prob(x, noise=noise)
    flow.bijector.compile(backend="eager")
    flow.log_prob(x, noise=noise)
    for parameter in flow.parameters():
        parameter.mul_(1.05)
    fresh = flowzoo.create("glow-tiny").eval()
    fresh.load_state_dict(flow.state_dict())
    torch.testing.assert_close(flow.log_prob(x, noise=noise), fresh.log_prob(x, noise=noise))
