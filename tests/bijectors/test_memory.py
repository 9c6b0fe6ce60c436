"""What the backward pass keeps changes memory, never the gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from flowzoo.nets.folding import Folds
from torch import Tensor

import flowzoo
from flowzoo.bijectors import (
    ActNorm,
    AffineCoupling,
    Bijector,
    Chain,
    ChannelHalves,
    Coupling,
    Inverse,
    InvertibleConv1x1,
    InvertibleConv1x1LU,
    ScaleMap,
)
from flowzoo.bijectors.chain import MemoryMode
from flowzoo.flow import Flow
from flowzoo.nets.conv import BiasConv2d, ConvNet
from flowzoo.nets.precision import RunsNetwork
from flowzoo.testing import random_images, randomize

MODELS = {
    "nice": ("nice-tiny", {}),
    "glow": ("glow-tiny", {}),
    "glow, additive, LU": ("glow-tiny", {"coupling": "additive", "permutation": "lu"}),
    "glow, variational": ("glow-tiny", {"dequantization": "variational", "preprocessing": "logit"}),
    "realnvp": ("realnvp-tiny", {}),
    "flowpp": ("flowpp-tiny", {}),
    "flowpp, dropout": ("flowpp-tiny", {"dropout": 0.3}),
}


def gradients(flow: Flow, memory: str, x: Tensor) -> dict[str, Tensor]:
    flow.set_memory(memory)  # type: ignore[arg-type]
    flow.zero_grad()
    torch.manual_seed(5)
    noise = flow.draw_noise(len(x), generator=torch.Generator().manual_seed(1))
    flow.log_prob(x, noise=noise).sum().backward()
    return {name: p.grad.clone() for name, p in flow.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("memory", ["checkpoint", "invertible"])
@pytest.mark.parametrize("model", MODELS)
def test_gradients_equal_the_stored_ones(model: str, memory: str, training: bool) -> None:
    name, overrides = MODELS[model]
    torch.manual_seed(0)
    flow = randomize(flowzoo.create(name, **overrides).double(), seed=1).train(training)
    x = random_images(flow, 4, seed=2)
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    expected = gradients(flow, "store", x)
    statistics = {key: value.clone() for key, value in flow.state_dict().items()}
    flow.load_state_dict(before)
    found = gradients(flow, memory, x)
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for key, gradient in expected.items():
        # A bias before a batch norm has the gradient 0 but for rounding, which nothing is relative to.
        scale = gradient.abs().max().clamp_min(1e-6 * largest)
        assert float((found[key] - gradient).abs().max() / scale) <= 1e-9, key
    after = flow.state_dict()
    assert all(torch.allclose(after[key], value, rtol=1e-12) for key, value in statistics.items())


@pytest.mark.parametrize("window", [1, 2**11, 2**30])
def test_gradients_do_not_depend_on_how_much_is_folded_at_a_time(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    flow = randomize(flowzoo.create("glow-tiny", depth=5).double(), seed=1)
    # One module at two places of the chain: its gradients from both count.
    twice = flow.bijector.bijectors[3]
    flow.bijector.bijectors.insert(4, twice)
    frozen = next(p for name, p in flow.named_parameters() if name.endswith("first.bias"))
    frozen.requires_grad_(False)
    x = random_images(flow, 4, seed=2)
    expected = gradients(flow, "store", x)
    monkeypatch.setattr("flowzoo.bijectors.refolding.WINDOW", window)
    found = gradients(flow, "invertible", x)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-9, atol=1e-9 * float(gradient.abs().max()))
    assert all(m.together is None and not m.prepared for m in flow.modules() if isinstance(m, Folds))


class SharedNet(torch.nn.Module):
    """One layer used twice, a plain and a folding one."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = torch.nn.Conv2d(2, 2, 1)
        self.folding = BiasConv2d(2, 2, 3)
        self.last = torch.nn.Conv2d(2, 4, 1)
        self.again = torch.nn.ModuleList((self.plain, self.folding))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        out: Tensor = self.last(self.again[1](self.again[0](self.folding(self.plain(x)).tanh()).tanh()))
        return out


class Reflected(AffineCoupling):
    """A coupling that does something else than the class it derives from."""

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = super()._transform(x, parameters)
        return -z, log_det

    def _invert(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return super()._invert(-z, parameters)


class Turned(AffineCoupling):
    """A coupling that does more than its class knows of."""

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return super()._forward(x.flip(1), context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = super()._inverse(z, context)
        return x.flip(1), log_det


PARTS: dict[str, Callable[[], Bijector]] = {
    "a coupling with maps of its own": lambda: Turned(
        ChannelHalves(), ConvNet(2, 4, 3), ScaleMap("clamp2", 2)
    ),
    "a layer used twice": lambda: AffineCoupling(ChannelHalves(), SharedNet(), ScaleMap("clamp2", 2)),
    "an overridden coupling": lambda: Reflected(ChannelHalves(), BiasConv2d(2, 4, 3), ScaleMap("clamp2", 2)),
    "an inverted convolution": lambda: Inverse(InvertibleConv1x1(4, ActNorm((4,)))),
    "an inverted LU convolution": lambda: Inverse(InvertibleConv1x1LU(4)),
    "an inverted coupling": lambda: Inverse(
        AffineCoupling(ChannelHalves(), SharedNet(), ScaleMap("soft-tanh", 2))
    ),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("memory", ["checkpoint", "invertible"])
@pytest.mark.parametrize("part", PARTS)
def test_any_part_of_a_chain_has_the_stored_gradients(part: str, memory: MemoryMode, training: bool) -> None:
    torch.manual_seed(0)
    chain = Chain(InvertibleConv1x1(4), PARTS[part](), InvertibleConv1x1(4)).double().train(training)
    for parameter in chain.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    x = torch.randn(3, 4, 4, 4, dtype=torch.float64)
    found = {}
    for mode in ("store", memory):
        chain.set_memory(mode)  # type: ignore[arg-type]
        chain.zero_grad()
        z, log_det = chain(x)
        loss = (z.square().sum() + log_det.sum()) / 2
        # Twice, as in a Jacobian row by row.
        loss.backward(retain_graph=True)
        loss.backward()
        found[mode] = {name: p.grad.clone() for name, p in chain.named_parameters() if p.grad is not None}
    assert found[memory].keys() == found["store"].keys()
    for name, gradient in found["store"].items():
        torch.testing.assert_close(found[memory][name], gradient, rtol=1e-8, atol=1e-9)


def test_many_gradients_of_parameters_at_once_are_those_one_by_one() -> None:
    torch.manual_seed(0)
    flow = randomize(flowzoo.create("glow-tiny").double(), seed=1)
    flow.set_memory("invertible")
    x = random_images(flow, 3, seed=2)
    log_prob = flow.log_prob(x, noise=flow.draw_noise(3))
    parameters, rows = list(flow.parameters()), torch.eye(3, dtype=torch.float64)
    at_once = torch.autograd.grad(log_prob, parameters, rows, is_grads_batched=True, retain_graph=True)
    for index, row in enumerate(rows):
        one = torch.autograd.grad(log_prob, parameters, row, retain_graph=True)
        torch.testing.assert_close([gradient[index] for gradient in at_once], list(one), rtol=1e-9, atol=1e-9)


def test_an_empty_batch_has_no_gradients() -> None:
    chain = Chain(
        InvertibleConv1x1(4), AffineCoupling(ChannelHalves(), ConvNet(2, 4, 3), ScaleMap("clamp2", 2))
    )
    chain.set_memory("invertible")
    z, log_det = chain(torch.randn(0, 4, 2, 2))
    (z.sum() + log_det.sum()).backward()
    assert all(not p.grad.any() for p in chain.parameters() if p.grad is not None)


def test_an_affine_coupling_of_convolutions_is_reversed_as_one_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it everything else here would hold as well."""
    flow = randomize(flowzoo.create("glow-tiny"), seed=1)

    def refuse(*_: object) -> None:
        raise AssertionError("a coupling was reversed by its parts")

    monkeypatch.setattr(Coupling, "reverse", refuse)
    assert gradients(flow, "invertible", random_images(flow, 2, seed=2))


def test_an_interrupted_pass_leaves_the_generator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = randomize(flowzoo.create("flowpp-tiny", dropout=0.3), seed=1).train()
    flow.set_memory("invertible")
    x = random_images(flow, 2, seed=0)
    assert isinstance(flow.bijector, Chain)
    monkeypatch.setattr(flow.bijector, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        flow.log_prob(x)
    assert all(m.random_states is None for m in flow.modules() if isinstance(m, RunsNetwork))


def interrupted(x: Tensor, context: Tensor | None) -> None:
    raise KeyboardInterrupt


def test_what_is_to_be_rebuilt_is_what_would_be_stored_to_the_last_bit() -> None:
    # Where a network gets other last bits in the backward pass, ReLUs near 0 are on in one and off in the other.
    torch.manual_seed(0)
    flow = randomize(flowzoo.create("glow-tiny", depth=8), seed=1, scale=0.05).eval()
    x = torch.rand(16, *flow.image_shape)
    found = []
    for memory in ("store", "invertible"):
        flow.set_memory(memory)  # type: ignore[arg-type]
        found.append(flow.bijector(x))
    (z, log_det), (again, log_det_again) = found
    assert torch.equal(z, again)
    torch.testing.assert_close(log_det, log_det_again)


def test_float32_gradients_agree_to_a_thousandth() -> None:
    torch.manual_seed(0)
    flow = randomize(flowzoo.create("glow-tiny"), seed=1, scale=0.05)
    x = random_images(flow, 16, seed=2)
    expected, found = gradients(flow, "store", x), gradients(flow, "invertible", x)
    total = sum(float((found[k] - g).square().sum()) for k, g in expected.items())
    norm = sum(float(g.square().sum()) for g in expected.values())
    assert (total / norm) ** 0.5 < 1e-3


def stored_bytes(flow: Flow, x: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, parameters left out."""
    own = {p.data_ptr() for p in flow.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        flow.log_prob(x)
    return sum(kept.values())


def test_invertible_memory_does_not_grow_with_depth() -> None:
    sizes = {}
    for memory in ("store", "invertible"):
        for depth in (2, 8):
            flow = flowzoo.create("glow-tiny", depth=depth)
            flow.set_memory(memory)  # type: ignore[arg-type]
            sizes[memory, depth] = stored_bytes(flow, random_images(flow, 32, seed=0))
    assert sizes["store", 8] > 3 * sizes["store", 2]
    assert sizes["invertible", 8] <= 1.01 * sizes["invertible", 2]


def test_drift_beyond_the_bound_warns() -> None:
    torch.manual_seed(0)
    flow = flowzoo.create("glow-tiny", depth=8, scale_map="exp")
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    flow.set_memory("invertible")
    with pytest.warns(UserWarning, match="relative error"):
        flow.log_prob(random_images(flow, 2, seed=0)).sum().backward()


def test_a_sound_chain_does_not_warn() -> None:
    flow = randomize(flowzoo.create("glow-tiny"), seed=1, scale=0.05)
    flow.set_memory("invertible")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.log_prob(random_images(flow, 2, seed=0)).sum().backward()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(flowzoo.errors.ConfigError, match="choose one of"):
        Chain().set_memory("forget")  # type: ignore[arg-type]
