"""The engine gives the numbers of the mathematics, for every bijector, mode and direction."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

import flowzoo
from flowzoo.bijectors import (
    ActNorm,
    AffineCoupling,
    Bijector,
    Chain,
    ChannelHalves,
    InvertibleConv1x1,
    InvertibleConv1x1LU,
    ScaleMap,
)
from flowzoo.bijectors.chain import MemoryMode
from flowzoo.engine import Engine, disabled, explain
from flowzoo.flow import Flow
from flowzoo.nets.conv import conv_net
from flowzoo.testing import random_images, randomize
from tests.bijectors.test_bijectors import CASES, make

MEMORY = get_args(MemoryMode)
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}
MODELS = ["nice-tiny", "realnvp-tiny", "glow-tiny", "flowpp-tiny"]


def assert_near(found: object, expected: object, dtype: torch.dtype) -> None:
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def plain_run(
    bijector: Bijector, x: Tensor, context: Tensor | None = None, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    return bijector.inverse(x, context) if inverse else bijector(x, context)


def differentiated(
    bijector: Bijector, x: Tensor, context: Tensor | None, inverse: bool, fast: bool
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Values, and gradients of a function of them that is not linear."""
    given = [t.clone().requires_grad_() for t in (x, context) if t is not None]
    z, log_det = (Engine().run if fast else plain_run)(bijector, *given, inverse=inverse)
    loss = z.sin().sum() + (log_det * torch.linspace(0.5, 1, len(x), dtype=x.dtype)).sum()
    wanted = [*given, *(p for p in bijector.parameters() if p.requires_grad)]
    return z.detach(), log_det.detach(), list(torch.autograd.grad(loss, wanted, allow_unused=True))


def assert_gradients_alike(plain: object, found: object, dtype: torch.dtype) -> None:
    for one, other in zip(plain, found, strict=True):  # type: ignore[call-overload]
        # A parameter that nothing depends on has no gradient in one and zeros in the other.
        if one is None or other is None:
            assert all(t is None or not t.any() for t in (one, other))
        else:
            assert_near(other, one, dtype)


def assert_alike(bijector: Bijector, x: Tensor, context: Tensor | None = None, inverse: bool = False) -> None:
    before = copy.deepcopy(bijector.state_dict())
    results = []
    for fast in (False, True):
        # Batch norms in training mode move their averages.
        bijector.load_state_dict(before)
        results.append(differentiated(bijector, x, context, inverse, fast))
    plain, found = results
    assert_near(found[:2], plain[:2], x.dtype)
    assert_gradients_alike(plain[2], found[2], x.dtype)
    bijector.load_state_dict(before)
    engine = Engine()
    with torch.no_grad():
        assert_near(engine.run(bijector, x, context, inverse=inverse), plain[:2], x.dtype)
        with engine.frozen():
            for _ in range(2):
                assert_near(engine.run(bijector, x, context, inverse=inverse), plain[:2], x.dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", CASES)
def test_every_bijector_in_both_directions(name: str, training: bool, dtype: torch.dtype) -> None:
    bijector, x = make(name, dtype=dtype)
    with torch.no_grad():
        z = bijector(x)[0]
    bijector.train(training)
    assert_alike(bijector, x)
    if not (training and name.startswith("batch norm")):
        assert_alike(bijector, z, inverse=True)


def steps(
    count: int, order: str = "shift-scale", lu: bool = False, context: int = 0, bounds: Sequence[float] = ()
) -> Chain:
    """So many steps of a Glow, of five channels, the halves in turn; bounds are of what the networks see."""
    found: list[Bijector] = []
    for index in range(count):
        swap = index % 2 == 1
        given = 2 if swap else 3
        net = conv_net(given, 2 * (5 - given), 6, context, normalization="none", edge_bias=index == 0)
        net.rectify = nn.Hardtanh(*bounds) if bounds else None
        scale_map = ScaleMap("sigmoid2", 5 - given)
        kind = InvertibleConv1x1LU if lu else InvertibleConv1x1
        coupling = AffineCoupling(ChannelHalves(swap), net, scale_map, order)  # type: ignore[arg-type]
        found += [kind(5, ActNorm((5,))), coupling]
    chain = Chain(*found)
    for index, parameter in enumerate(chain.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        with torch.no_grad():
            parameter.add_(0.1 * noise)
    return chain


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("kind", ["short", "long", "other order", "LU", "clamped", "with a context"])
def test_chains_of_steps(kind: str, memory: MemoryMode, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    conditional = kind == "with a context"
    order = "scale-shift" if kind == "other order" else "shift-scale"
    count = {"short": 1, "long": 9}.get(kind, 3)
    bounds = (-0.5, 0.25) if kind == "clamped" else ()
    chain = steps(count, order, kind == "LU", 2 if conditional else 0, bounds).to(dtype)
    chain.set_memory(memory)
    x = torch.randn(3, 5, 4, 4, dtype=dtype)
    context = torch.randn(3, 2, 4, 4, dtype=dtype) if conditional else None
    assert_alike(chain, x, context)
    assert_alike(chain, x, context, inverse=True)
    assert "fused into a row" in Engine().explain(chain, x, context)


def test_a_clamp_that_is_changed_counts_also_while_frozen() -> None:
    chain, x = steps(2, bounds=(-0.5, 0.25)).double(), torch.randn(2, 5, 4, 4, dtype=torch.float64)
    engine = Engine()
    with torch.no_grad(), engine.frozen():
        before = engine.run(chain, x)[0]
        for module in chain.modules():
            if isinstance(module, nn.Hardtanh):
                module.max_val = 0.5
        found = engine.run(chain, x)[0]
        assert not torch.equal(found, before)
        assert_near(found, chain(x)[0], torch.float64)


@pytest.mark.parametrize("memory", MEMORY)
def test_second_derivatives_and_many_gradients_at_once(memory: MemoryMode) -> None:
    chain = steps(3, bounds=(-0.5, 0.25)).double()
    chain.set_memory(memory)
    x, found = torch.randn(2, 5, 2, 2, dtype=torch.float64), []
    for run in (plain_run, Engine().run):
        given = x.clone().requires_grad_()
        z, log_det = run(chain, given)
        (grad,) = torch.autograd.grad(z.sin().sum() + log_det.sum(), given, create_graph=True)
        second = torch.autograd.grad(grad.square().sum(), [given, *chain.parameters()], allow_unused=True)
        rows = torch.eye(2, dtype=torch.float64)
        many = torch.autograd.grad(run(chain, given)[1], given, rows, is_grads_batched=True)
        found.append((*second, *many))
    assert_gradients_alike(*found, torch.float64)


def differentiated_flow(flow: Flow, x: Tensor, noise: Tensor) -> list[Tensor]:
    flow.zero_grad()
    torch.manual_seed(7)
    log_prob = flow.log_prob(x, noise=noise)
    log_prob.sum().backward()
    return [log_prob.detach(), *(p.grad.clone() for p in flow.parameters() if p.grad is not None)]


@pytest.mark.parametrize("noise_kind", ["uniform", "variational"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, memory: MemoryMode, training: bool, noise_kind: str) -> None:
    if name == "nice-tiny" and noise_kind == "variational":
        pytest.skip("NICE has no learned noise")
    torch.manual_seed(0)
    options = {} if name == "nice-tiny" else {"dequantization": noise_kind}
    flow = randomize(flowzoo.create(name, **options).double(), seed=1).train(training)
    flow.set_memory(memory)
    x = random_images(flow, 3, seed=2)
    noise = flow.draw_noise(3, generator=torch.Generator().manual_seed(3))
    before = copy.deepcopy(flow.state_dict())
    with disabled():
        expected = differentiated_flow(flow, x, noise)
    flow.load_state_dict(before)
    found = differentiated_flow(flow, x, noise)
    assert len(found) == len(expected)
    largest = max(float(t.abs().max()) for t in expected[1:])
    for one, other in zip(expected, found, strict=True):
        # A bias before a batch norm has the gradient 0 but for rounding, which nothing is relative to.
        torch.testing.assert_close(other, one, rtol=1e-7, atol=1e-9 * largest)
    if training:
        return
    with torch.no_grad(), flow.frozen():
        for _ in range(2):
            torch.testing.assert_close(flow.log_prob(x, noise=noise), expected[0], rtol=1e-9, atol=1e-9)
    z = flow.encode(x)
    with disabled():
        torch.testing.assert_close(z, flow.encode(x), rtol=1e-9, atol=1e-9)
        images = flow.decode(z)
    assert torch.equal(flow.decode(z), images)


@pytest.mark.parametrize("name", MODELS)
def test_something_is_fused_in_every_model(name: str) -> None:
    flow = flowzoo.create(name)
    x = random_images(flow, 2, seed=0)
    way, parts = explain(flow, x).split("\n", 1)
    assert way == "on cpu, by the engine, neither compiled nor as a CUDA graph:"
    assert "fused" in parts
    with disabled():
        assert explain(flow, x) == "on cpu, plain: the engine is switched off"


def test_a_compiled_flow_is_said_to_be_compiled() -> None:
    flow = flowzoo.create("glow-tiny")
    compiled = torch.compile(flow, backend="eager")
    assert explain(compiled, random_images(flow, 2, seed=0)).startswith("on cpu, by torch.compile: ")  # type: ignore[arg-type]


def test_the_way_names_the_device_of_the_flow() -> None:
    flow = flowzoo.create("glow-tiny").to("meta")
    assert explain(flow, random_images(flow, 2, seed=0)).startswith("on meta, by the engine")


@pytest.mark.parametrize("memory", MEMORY)
def test_tensors_that_others_hold_are_not_written_over(memory: MemoryMode) -> None:
    chain, x = steps(9).double(), torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    chain.set_memory(memory)
    engine = Engine()
    z, log_det = engine.run(chain, x)
    held = [x, z, torch.randn_like(z), torch.randn_like(log_det)]
    before = [t.detach().clone() for t in held]
    wanted = [x, *chain.parameters()]
    first, second = (
        torch.autograd.grad([z, log_det], wanted, held[2:], retain_graph=True, allow_unused=True)
        for _ in range(2)
    )
    with torch.no_grad():
        engine.run(chain, x)
        engine.run(chain, z, inverse=True)
    assert all(map(torch.equal, held, before))
    assert_gradients_alike(first, second, torch.float64)
