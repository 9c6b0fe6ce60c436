"""Bijectors joined in rows and turns are the bijectors one by one, and nobody's tensors are written over."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable

import pytest
import torch
from flowzoo.bijectors.affine import AffineOrder
from flowzoo.bijectors.passage import LONGEST, Part, through
from flowzoo.bijectors.rows import Row
from flowzoo.bijectors.turns import Turns
from torch import Tensor

import flowzoo
from flowzoo.bijectors import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijector,
    Chain,
    ChannelHalves,
    InterleavedFeatures,
    InvertibleConv1x1,
    InvertibleConv1x1LU,
    MaskedCheckerboard,
    Partition,
    ScaleMap,
)
from flowzoo.errors import InputError
from flowzoo.nets.conv import ConvNet
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.mlp import MLP
from flowzoo.testing import random_images, randomize
from tests.engine.test_fused import draw

CHANNELS = 5


def drawn(chain: Chain) -> Chain:
    """The chain in float64, its parameters random."""
    for index, parameter in enumerate(chain.double().parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)).double()
        with torch.no_grad():
            parameter.add_(0.1 * noise)
    return chain


def steps(count: int, order: AffineOrder = "shift-scale", lu: bool = False) -> list[Bijector]:
    """So many steps of a Glow, of five channels, the halves in turn."""
    found: list[Bijector] = []
    for index in range(count):
        swap = index % 2 == 1
        given = 2 if swap else 3
        net = ConvNet(given, 2 * (CHANNELS - given), 6)
        kind = InvertibleConv1x1LU if lu else InvertibleConv1x1
        scale_map = ScaleMap("sigmoid2", CHANNELS - given)
        found += [
            kind(CHANNELS, ActNorm((CHANNELS,))),
            AffineCoupling(ChannelHalves(swap), net, scale_map, order),
        ]
    return found


def additive(partition: Partition, sizes: tuple[int, int], count: int) -> list[Bijector]:
    """So many couplings on vectors, the halves in turn."""
    return [
        AdditiveCoupling(partition.complement() if i % 2 else partition, MLP(a, (8,), b, 0.5))
        for i, (a, b) in zip(range(count), itertools.cycle((sizes, sizes[::-1])), strict=False)
    ]


def one_by_one(chain: Chain, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    total = x.new_zeros(len(x))
    bijectors: list[Bijector] = list(chain.bijectors)  # type: ignore[arg-type]
    for bijector in reversed(bijectors) if inverse else bijectors:
        x, log_det = bijector.inverse(x) if inverse else bijector(x)
        total = total + log_det
    return x, total


def derivatives(chain: Chain, outputs: tuple[Tensor, Tensor], x: Tensor) -> list[Tensor]:
    z, log_det = outputs
    loss = (z.square().flatten(1).sum(1) * log_det.cos()).sum()
    return list(torch.autograd.grad(loss, [x, *chain.parameters()]))


CHAINS = {
    "a row": lambda: (steps(2), (CHANNELS, 4, 4)),
    "rows": lambda: (steps(LONGEST), (CHANNELS, 4, 4)),
    "the other order": lambda: (steps(3, order="scale-shift"), (CHANNELS, 4, 4)),
    "triangular": lambda: (steps(3, lu=True), (CHANNELS, 4, 4)),
    "a row between others": lambda: (
        [ActNorm((CHANNELS,)), *steps(2)[1:], ActNorm((CHANNELS,))],
        (CHANNELS, 2, 2),
    ),
    "one pixel": lambda: (steps(3), (CHANNELS, 1, 1)),
    "turns": lambda: (additive(InterleavedFeatures(), (4, 4), 5), (8,)),
    "turns of an odd number": lambda: (additive(InterleavedFeatures(), (5, 4), 4), (9,)),
    "turns of channels": lambda: (additive(ChannelHalves(swap=True), (4, 4), 3), (8,)),
    "the same half twice": lambda: ([*additive(InterleavedFeatures(), (4, 4), 2)] * 2, (8,)),
    "other halves between": lambda: (
        [*additive(InterleavedFeatures(), (4, 4), 2), *additive(ChannelHalves(), (4, 4), 3)],
        (8,),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_its_bijectors_one_by_one(name: str) -> None:
    bijectors, shape = CHAINS[name]()
    chain = drawn(Chain(*bijectors))
    x = draw(3, *shape)
    outputs, expected = chain(x), one_by_one(chain, x)
    torch.testing.assert_close(outputs, expected, rtol=1e-11, atol=1e-11)
    for a, b in zip(derivatives(chain, outputs, x), derivatives(chain, expected, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        for mode in (True, False):
            chain.train(mode)
            z, log_det = chain(x)
            torch.testing.assert_close((z, log_det), expected, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(
                chain.inverse(z), one_by_one(chain, z, inverse=True), rtol=1e-11, atol=1e-11
            )
            torch.testing.assert_close(chain.inverse(z), (x, -log_det), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["a row", "rows", "turns"])
def test_many_gradients_at_once_are_those_one_by_one(name: str) -> None:
    bijectors, shape = CHAINS[name]()
    chain = drawn(Chain(*bijectors))
    x = draw(1, *shape)
    for output in (1, 0):
        one, many = (
            torch.autograd.functional.jacobian(lambda v, i=output: chain(v)[i], x, vectorize=vectorize)
            for vectorize in (False, True)
        )
        torch.testing.assert_close(one, many)
    size = x.numel()
    expected = torch.linalg.slogdet(one.reshape(size, size)).logabsdet
    torch.testing.assert_close(chain(x)[1][0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["a row", "rows", "the other order", "one pixel", "turns"])
def test_what_others_hold_is_not_written_over(name: str) -> None:
    bijectors, shape = CHAINS[name]()
    chain = drawn(Chain(*bijectors))
    x = draw(3, *shape)
    z, log_det = chain(x)
    held = [x, z, torch.randn_like(z), torch.randn_like(log_det)]
    before = [tensor.detach().clone() for tensor in held]
    count = 2 if log_det.requires_grad else 1
    first, second = (
        torch.autograd.grad(
            [z, log_det][:count], [x, *chain.parameters()], held[2 : 2 + count], retain_graph=True
        )
        for _ in range(2)
    )
    with torch.no_grad():
        for mode in (True, False):
            chain.train(mode)
            chain(x)
            chain.inverse(z)
    for tensor, then in zip(held, before, strict=True):
        assert torch.equal(tensor, then)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["rows", "turns"])
def test_a_watched_bijector_is_called_and_its_tensors_stay(name: str) -> None:
    bijectors, shape = CHAINS[name]()
    chain = drawn(Chain(*bijectors))
    x = draw(3, *shape)
    expected = chain(x)
    for index, bijector in enumerate(bijectors):
        seen = list[tuple[Tensor, Tensor]]()
        handle = bijector.register_forward_hook(
            lambda _, inputs, outputs, seen=seen: seen.extend(
                (tensor, tensor.detach().clone()) for tensor in (inputs[0], outputs[0])
            )
        )
        for recorded in (True, False):
            with torch.set_grad_enabled(recorded):
                torch.testing.assert_close(chain(x), expected, rtol=1e-11, atol=1e-11)
        handle.remove()
        assert len(seen) == 4, index
        assert all(torch.equal(now, then) for now, then in seen)


class Doubles:
    """A mixin that does something more around the maps."""

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = super()._forward(x, context)  # type: ignore[misc]
        return 2 * z, log_det + x[0].numel() * math.log(2)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = super()._inverse(z / 2, context)  # type: ignore[misc]
        return x, log_det - z[0].numel() * math.log(2)


class DoublesInPublic:
    """The same around the public maps."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = super().forward(x, context)  # type: ignore[misc]
        return 2 * z, log_det + x[0].numel() * math.log(2)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = super().inverse(z / 2, context)  # type: ignore[misc]
        return x, log_det - z[0].numel() * math.log(2)


@pytest.mark.parametrize("more", [Doubles, DoublesInPublic])
@pytest.mark.parametrize("name", ["a row", "turns"])
def test_a_bijector_that_does_more_than_its_class_is_called(name: str, more: type) -> None:
    bijectors, shape = CHAINS[name]()
    chain = drawn(Chain(*bijectors))
    x = draw(2, *shape)
    for bijector in bijectors:
        kind = type(bijector)
        bijector.__class__ = type(kind.__name__, (more, kind), {})
        for recorded in (True, False):
            with torch.set_grad_enabled(recorded):
                torch.testing.assert_close(chain(x), one_by_one(chain, x), rtol=1e-11, atol=1e-11)
        with torch.no_grad():
            z, log_det = chain(x)
            torch.testing.assert_close(chain.inverse(z), (x, -log_det), rtol=1e-9, atol=1e-9)
        bijector.__class__ = kind


def joined(parts: Iterable[Part]) -> list[object]:
    """Of each part the length of a row, the number of couplings that take turns, or its class."""
    return [
        len(part.steps)
        if isinstance(part, Row)
        else f"{len(part.couplings)} turns"
        if isinstance(part, Turns)
        else type(part)
        for part in parts
    ]


def test_bijectors_join_where_they_can() -> None:
    """Without it everything else here would hold as well."""
    expected: dict[str, list[object]] = {
        "rows": [LONGEST, LONGEST],
        "a row between others": [ActNorm, 3, ActNorm],
        "turns": ["5 turns"],
        "other halves between": ["2 turns", "3 turns"],
    }
    for name, parts in expected.items():
        bijectors, shape = CHAINS[name]()
        x = draw(2, *shape, dtype=torch.float32)
        assert joined(through(bijectors, x, None)[2]) == parts
        with torch.no_grad():
            _, _, found = through(bijectors[::-1], x, None, inverse=True)
            assert joined(found) == ([2 * LONGEST] if name == "rows" else parts[::-1])
            handle = bijectors[1].register_forward_hook(lambda *_: None)
            assert joined(through(bijectors[:2], x, None)[2])[-1] is type(bijectors[1])
            handle.remove()


@torch.no_grad()
def test_a_model_joins_its_bijectors_once() -> None:
    flow = randomize(flowzoo.create("glow-tiny"), seed=1).eval()
    x, noise = random_images(flow, 2, seed=0), flow.draw_noise(2)
    chain = flow.bijector
    assert isinstance(chain, Chain)
    kept = [(flow.log_prob(x, noise=noise), dict(chain._kept))[1] for _ in range(2)]
    (first,), (second,) = (entries.values() for entries in kept)
    assert any(isinstance(part, Row) for part in first.value.parts)
    assert first.value is second.value


def test_masked_couplings_part_for_themselves() -> None:
    board = MaskedCheckerboard()
    nets = [ConvNet(1, 1, 4) for _ in range(3)]
    couplings = [
        AdditiveCoupling(p, n) for p, n in zip((board, board.complement(), board), nets, strict=True)
    ]
    chain, x = drawn(Chain(*couplings)), draw(2, 1, 4, 4)
    assert joined(through(couplings, x, None)[2]) == [AdditiveCoupling] * 3
    torch.testing.assert_close(chain(x), one_by_one(chain, x), rtol=1e-11, atol=1e-11)


def test_what_a_row_gives_in_evaluation_is_an_ordinary_tensor() -> None:
    bijectors, shape = CHAINS["a row"]()
    chain, x = drawn(Chain(*bijectors)).eval(), draw(3, *shape)
    with torch.no_grad():
        z, log_det = chain(x)
        before, versions = z.clone(), (x._version, z._version)
        z.mul_(2)
    assert (x._version, z._version - 1) == versions
    torch.testing.assert_close(z, 2 * before)
    for tensor in (z, log_det):
        assert tensor.is_leaf
        assert not tensor.requires_grad
        (gradient,) = torch.autograd.grad(tensor.requires_grad_().square().sum(), tensor)
        torch.testing.assert_close(gradient, 2 * tensor.detach())


CHANGES = [
    *("the networks' dtype", "the scale map", "the scale map's name", "a setting", "the halves", "a method"),
    "the order of bijectors",
]


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_rows_of_a_model_that_has_changed_are_made_anew(change: str) -> None:
    torch.manual_seed(0)
    flow = randomize(flowzoo.create("glow-tiny"), seed=1, scale=0.05).eval()
    x, noise = random_images(flow, 4, seed=0), flow.draw_noise(4)
    before = [flow.log_prob(x, noise=noise) for _ in range(3)][-1]
    latent = flow.encode(x)
    couplings = [module for module in flow.modules() if isinstance(module, AffineCoupling)]
    if change == "the networks' dtype":
        for coupling in couplings:
            coupling.network_dtype = torch.bfloat16
    elif change == "the scale map":
        couplings[0].scale_map = ScaleMap("clamp2", 6)
    elif change == "a setting":
        couplings[0].order = "scale-shift"
    elif change == "the halves":
        couplings[0].partition = couplings[0].partition.complement()
    elif change == "the scale map's name":
        couplings[0].scale_map.name = "clamp2"
    elif change == "a method":
        forward = couplings[0].forward
        couplings[0].forward = lambda x, context=None: forward(0.9 * x, context)  # type: ignore[method-assign]
    else:
        chain = flow.bijector
        assert isinstance(chain, Chain)
        chain.bijectors[2], chain.bijectors[4] = chain.bijectors[4], chain.bijectors[2]
    found, other = flow.log_prob(x, noise=noise), flow.encode(x)
    assert not torch.equal(found, before)
    assert not torch.equal(latent, other)
    fresh = flow.train().eval()
    torch.testing.assert_close(found, fresh.log_prob(x, noise=noise))
    torch.testing.assert_close(other, fresh.encode(x))


def test_a_model_with_narrow_networks_and_learned_noise_is_looked_at_once() -> None:
    flow = flowzoo.create("glow-tiny", dequantization="variational").eval()
    flow.set_network_dtype(torch.bfloat16)
    x, noise = random_images(flow, 2, seed=0), flow.draw_noise(2)
    with torch.no_grad():
        flow.log_prob(x, noise=noise)
        kept = flow._snapshot._last
        flow.log_prob(x, noise=noise)
    assert kept is not None
    assert flow._snapshot._last is kept


def test_layers_that_initialize_themselves_are_given_what_reaches_them() -> None:
    found, first = [], drawn(Chain(*steps(2)))
    for joined in (True, False):
        chain = copy.deepcopy(first)
        for module in chain.modules():
            if isinstance(module, DataDependentInit):
                module.initializing = True
        x = draw(8, CHANNELS, 4, 4)
        found.append(chain(x) if joined else one_by_one(chain, x))
        assert all(module.initialized for module in chain.modules() if isinstance(module, DataDependentInit))
    torch.testing.assert_close(found[0], found[1])


def test_autocast_is_for_networks_and_not_for_what_is_around_them() -> None:
    chain = Chain(*steps(2))
    x = draw(2, CHANNELS, 4, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(InputError, match="AffineCoupling"):
        chain(x)
    expected = torch.autograd.grad(sum(t.sum() for t in chain(x)), x)
    z, log_det = chain(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(z.sum() + log_det.sum(), x)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_a_coupling_in_evaluation_compiles_to_one_graph() -> None:
    coupling = AffineCoupling(ChannelHalves(), ConvNet(3, 4, 6), ScaleMap("sigmoid2", 2)).eval()
    x = draw(5, 2, 4, 4, dtype=torch.float32).detach().transpose(0, 1)
    compiled = torch.compile(coupling, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), coupling(x))
