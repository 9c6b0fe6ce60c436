"""The operations with a backward pass of their own, and folding together, equal what they stand for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import flowzoo
from flowzoo.bijectors import (
    ChannelHalves,
    InvertibleConv1x1,
    MixtureLogisticCoupling,
    ScaleMap,
    ScaleMapName,
)
from flowzoo.bijectors.affine import AffineOrder, ParameterLayout, affine, shift_and_raw
from flowzoo.bijectors.layout import (
    channel_major,
    channel_rows,
    from_channel_rows,
    join_channels,
    split_channels,
)
from flowzoo.bijectors.mixture_map import mixture_map
from flowzoo.nets.conv import ActNormConv2d, ConvNet
from flowzoo.nets.folding import Folds, folded_together
from flowzoo.nets.rectified import Kernel, rectified_convolutions
from flowzoo.nets.relu import before_relu_, relu, relu_
from flowzoo.testing import random_images, randomize

FIXED: list[ScaleMapName] = [name for name in get_args(ScaleMapName) if ScaleMap(name, 1).is_fixed]
KINDS = list(itertools.product(FIXED, get_args(AffineOrder), get_args(ParameterLayout)))


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def plain_affine(
    x: Tensor, parameters: Tensor, scale_map: ScaleMap, order: AffineOrder, layout: ParameterLayout
) -> tuple[Tensor, Tensor]:
    shift, raw = shift_and_raw(parameters, layout)
    log_scale = scale_map(raw)
    z = (x + shift) * log_scale.exp() if order == "shift-scale" else x * log_scale.exp() + shift
    return z, log_scale.flatten(1).sum(1)


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (2, 3)], ids=["images", "vectors"])
def test_the_affine_map_is_the_plain_composition(
    kind: tuple[ScaleMapName, AffineOrder, ParameterLayout], shape: tuple[int, ...]
) -> None:
    name, order, layout = kind
    scale_map = ScaleMap(name, 3)
    x, parameters = draw(*shape), draw(shape[0], 6, *shape[2:], seed=1)
    found = affine(x, parameters, scale_map, order, layout)
    expected = plain_affine(x, parameters, scale_map, order, layout)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(found, expected, strict=True))
    assert torch.autograd.gradcheck(lambda a, b: affine(a, b, scale_map, order, layout), (x, parameters))


def test_a_scale_near_zero_keeps_value_and_gradient_finite() -> None:
    x, parameters = draw(2, 3, 2, 2, dtype=torch.float32), torch.full((2, 6, 2, 2), -1e4, requires_grad=True)
    z, log_det = affine(x, parameters, ScaleMap("sigmoid2", 3), "shift-scale", "halves")
    (z.sum() + log_det.sum()).backward()
    assert bool(torch.isfinite(log_det).all())
    assert parameters.grad is not None
    assert bool(torch.isfinite(parameters.grad).all())


def kernels(dtype: torch.dtype = torch.float64, hidden: int = 5) -> list[Kernel]:
    first = Kernel(draw(hidden, 4, 3, 3, dtype=dtype), draw(hidden, seed=1, dtype=dtype), None, None, 1, True)
    second = Kernel(
        draw(hidden, hidden, 1, 1, seed=2, dtype=dtype),
        draw(hidden, seed=3, dtype=dtype),
        None,
        None,
        0,
        False,
    )
    inside = torch.ones(1, 1, 4, 4, dtype=dtype)
    outside = 1 - F.unfold(inside, (3, 3), padding=1)[0].t()
    edge = draw(2, 9, seed=4, dtype=dtype)
    last = Kernel(
        draw(2, hidden, 3, 3, seed=5, dtype=dtype), draw(2, seed=6, dtype=dtype), edge, outside, 1, False
    )
    return [first, second, last]


def plain_convolutions(x: Tensor, given: Sequence[Kernel]) -> Tensor:
    for index, kernel in enumerate(given):
        if kernel.ones:
            x = torch.cat((x, torch.ones_like(x[:, :1])), dim=1)
        x = F.conv2d(x, kernel.weight, kernel.bias, padding=kernel.padding)
        if kernel.edge is not None and kernel.outside is not None:
            x = x + (kernel.edge @ kernel.outside.t()).view(1, -1, *x.shape[2:])
        x = x.relu() if index + 1 < len(given) else x
    return x


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_rectified_convolutions_are_the_plain_composition(dtype: torch.dtype, tolerance: float) -> None:
    given, x = kernels(dtype), draw(3, 3, 4, 4, seed=7, dtype=dtype)
    leaves = [x, *(t for kernel in given for t in kernel[:3] if t is not None)]
    outputs = [run(x, given) for run in (rectified_convolutions, plain_convolutions)]
    pairs = [torch.autograd.grad(out.square().sum(), leaves) for out in outputs]
    for found, expected in [tuple(outputs), *zip(*pairs, strict=True)]:
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    with torch.no_grad():
        assert torch.allclose(rectified_convolutions(x, given), outputs[0], rtol=1e-4)


def test_rectified_convolutions_have_exact_gradients_also_of_many_outputs_at_once() -> None:
    given, x = kernels(), draw(1, 3, 4, 4, seed=7)
    assert torch.autograd.gradcheck(lambda v: rectified_convolutions(v, given), (x,))
    one_by_one, at_once = (
        torch.autograd.functional.jacobian(lambda v: rectified_convolutions(v, given), x, vectorize=vectorize)
        for vectorize in (False, True)
    )
    assert torch.allclose(one_by_one, at_once)


def test_under_autocast_convolutions_are_bfloat16_and_gradients_of_parameters_float32() -> None:
    given, x = kernels(torch.float32, hidden=16), draw(3, 3, 4, 4, seed=7, dtype=torch.float32)
    exact = rectified_convolutions(x, given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = rectified_convolutions(x, given)
    assert out.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.05 * exact.abs().max()
    out.float().square().sum().backward()
    assert x.grad is not None
    assert all(t.grad is not None and t.grad.dtype == t.dtype for kernel in given for t in kernel[:2])


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_evaluation_with_packed_kernels_is_the_same_for_every_batch_size(batch: int) -> None:
    torch.manual_seed(0)
    net = ConvNet(3, 4, 16, edge_bias=True)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    x = draw(7, 3, 8, 8, dtype=torch.float32).detach()
    expected = net.train()(x)
    net.eval()
    with torch.no_grad():
        for _ in range(2):
            assert torch.allclose(net(x[:batch]), expected[:batch], rtol=1e-4, atol=1e-4)
            assert torch.allclose(net(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("overrides", [{}, {"permutation": "lu"}, {"dequantization": "variational"}], ids=str)
def test_folding_together_changes_neither_values_nor_gradients(overrides: dict[str, Any]) -> None:
    torch.manual_seed(0)
    flow = randomize(flowzoo.create("glow-tiny", **overrides).double(), seed=1)
    x, noise = random_images(flow, 4, seed=2), flow.draw_noise(4, generator=torch.Generator().manual_seed(3))
    together = flow.log_prob(x, noise=noise)
    found = torch.autograd.grad(together.sum(), list(flow.parameters()))
    # A chain that checkpoints folds module by module.
    flow.set_memory("checkpoint")
    alone = flow.log_prob(x, noise=noise)
    expected = torch.autograd.grad(alone.sum(), list(flow.parameters()))
    assert torch.allclose(together, alone, rtol=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(found, expected, strict=True))


def test_what_was_folded_together_is_forgotten_even_after_an_error() -> None:
    flow = flowzoo.create("glow-tiny")
    modules = [module for module in flow.modules() if isinstance(module, Folds)]
    assert {type(module) for module in modules} >= {InvertibleConv1x1, ActNormConv2d}

    def fail() -> None:
        with folded_together(flow):
            assert all(module.together is not None for module in modules)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(module.together is None for module in modules)


def test_layouts_change_strides_and_nothing_else() -> None:
    x = draw(3, 5, 2, 4).detach()
    major = channel_major(x)
    assert torch.equal(major, x)
    assert channel_rows(major).data_ptr() == major.data_ptr()
    assert torch.equal(from_channel_rows(channel_rows(x), like=x), x)
    for given in (x, major, x[:, :, 0, 0]):
        first, second = split_channels(given, 2)
        assert torch.equal(first, given[:, :2])
        assert torch.equal(join_channels(first, second), given)


def test_layers_that_are_watched_are_called() -> None:
    net, x = ConvNet(3, 4, 5).double(), draw(2, 3, 4, 4)
    torch.nn.init.normal_(net.last.conv.weight)
    expected, seen = net(x), list[Tensor]()
    for layer in (net.first, net.second, net.last):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert torch.allclose(net(x), expected)
    assert [tuple(t.shape) for t in seen] == [(2, 5, 4, 4), (2, 5, 4, 4), (2, 4, 4, 4)]


def test_relu_of_bfloat16_is_torchs_for_every_number_there_is() -> None:
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    expected = x.relu()
    for found in (relu(x), relu_(x.clone())):
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num(0.0), expected.nan_to_num(0.0))
    numbers = x[~x.isnan()].requires_grad_()
    grad = torch.randn(len(numbers), generator=torch.Generator().manual_seed(0)).bfloat16()
    (expected,) = torch.autograd.grad(numbers.relu(), numbers, grad)
    (found,) = torch.autograd.grad(relu(numbers), numbers, grad)
    assert torch.equal(found, expected)
    assert torch.equal(before_relu_(grad.clone(), numbers.detach().relu()), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_broken_weight_gives_no_finite_numbers(dtype: torch.dtype, training: bool) -> None:
    net = ConvNet(3, 4, 64).train(training)
    torch.nn.init.normal_(net.last.conv.weight)
    with torch.no_grad():
        net.first.conv.weight[0, 0, 1, 1] = -torch.nan
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            assert bool(net(torch.ones(8, 3, 16, 16)).isnan().any())


def couplings_parameters(spread: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Elements and mixture parameters: near each other, far in the tails, or in valleys between components."""
    torch.manual_seed(3)
    x = torch.randn(6, 2, 3, 5, dtype=torch.float64) * spread
    parameters = torch.randn(6, (2 + 3 * 3) * 2, 3, 5, dtype=torch.float64) * 2
    parameters[:3, 10:16] *= spread
    # Below the bound of the log-scales.
    parameters[:, -1] -= 8
    return x.to(dtype), parameters.to(dtype)


@pytest.mark.parametrize("order", ["scale-shift", "shift-scale"])
@pytest.mark.parametrize("spread", [1.0, 30.0, 2000.0])
def test_the_fused_mixture_is_the_composed_one(order: AffineOrder, spread: float) -> None:
    coupling = MixtureLogisticCoupling(ChannelHalves(), torch.nn.Identity(), 2, 3, order=order)
    x, parameters = (t.requires_grad_() for t in couplings_parameters(spread))

    def composed() -> tuple[Tensor, Tensor]:
        log_scale, shift, mixture = coupling._unpack(parameters)
        y, log_slope = mixture.logit_cdf(x)
        scale = log_scale.exp()
        z = (y + shift) * scale if order == "shift-scale" else y * scale + shift
        return z, (log_slope + log_scale).flatten(1).sum(1)

    expected, found = composed(), mixture_map(x, parameters, 3, order)
    pulled = [torch.randn_like(t) for t in expected]
    for a, b in zip(
        (*expected, *torch.autograd.grad(expected, (x, parameters), pulled)),
        (*found, *torch.autograd.grad(found, (x, parameters), pulled)),
        strict=True,
    ):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11 * float(a.detach().abs().max()))
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(mixture_map(x, parameters, 3, order), found, strict=True)
        )


@pytest.mark.parametrize("spread", [1.0, 30.0, 2000.0])
def test_the_fused_mixture_keeps_its_digits_in_float32(spread: float) -> None:
    x, parameters = couplings_parameters(spread, torch.float32)
    found = mixture_map(x, parameters, 3, "scale-shift")
    expected = mixture_map(x.double(), parameters.double(), 3, "scale-shift")
    for a, b in zip(expected, found, strict=True):
        assert bool(((a - b).abs() <= 2e-5 * a.abs().clamp_min(1)).all())


def test_the_fused_mixture_takes_and_gives_back_what_is_narrower() -> None:
    x, parameters = couplings_parameters(1.0, torch.float32)
    narrow = parameters.bfloat16().requires_grad_()
    z, log_det = mixture_map(x, narrow, 3, "scale-shift")
    assert z.dtype == log_det.dtype == torch.float32
    (grad,) = torch.autograd.grad(z.sum() + log_det.sum(), narrow)
    assert grad.dtype == torch.bfloat16
    assert torch.equal(z, mixture_map(x, narrow.float(), 3, "scale-shift")[0])
