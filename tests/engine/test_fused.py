"""The operations with a backward pass of their own, and folding together, equal what they stand for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from flowzoo.bijectors.affine import (
    AffineMap,
    AffineOrder,
    ParameterLayout,
    affine,
    affine_reverse,
    shift_and_raw,
)
from flowzoo.bijectors.layout import (
    channel_major,
    channel_rows,
    join_channels,
    split_channels,
)
from flowzoo.nets.folding import Folds, folded_together
from flowzoo.nets.kernels import TENSORS, Kernel
from flowzoo.nets.rectified import rectified_convolutions
from flowzoo.nets.relu import before_relu_, relu, relu_
from torch import Tensor

import flowzoo
from flowzoo.bijectors import (
    InvertibleConv1x1,
    ScaleMap,
    ScaleMapName,
)
from flowzoo.bijectors.chain import MemoryMode
from flowzoo.errors import InputError
from flowzoo.nets.conv import ActNormConv2d, ConvNet
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
    found = affine(x, parameters, AffineMap(scale_map, order, layout))
    expected = plain_affine(x, parameters, scale_map, order, layout)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(found, expected, strict=True))
    assert torch.autograd.gradcheck(
        lambda a, b: affine(a, b, AffineMap(scale_map, order, layout)), (x, parameters)
    )


def test_a_scale_near_zero_keeps_value_and_gradient_finite() -> None:
    x, parameters = draw(2, 3, 2, 2, dtype=torch.float32), torch.full((2, 6, 2, 2), -1e4, requires_grad=True)
    z, log_det = affine(x, parameters, AffineMap(ScaleMap("sigmoid2", 3), "shift-scale", "halves"))
    (z.sum() + log_det.sum()).backward()
    assert bool(torch.isfinite(log_det).all())
    assert parameters.grad is not None
    assert bool(torch.isfinite(parameters.grad).all())


def kernels(dtype: torch.dtype = torch.float64, hidden: int = 5) -> list[Kernel]:
    def drawn(*shape: int, seed: int) -> Tensor:
        return draw(*shape, seed=seed, dtype=dtype)

    inside = torch.ones(1, 1, 4, 4, dtype=dtype)
    outside = 1 - F.unfold(inside, (3, 3), padding=1)[0].t()
    first = Kernel(
        drawn(hidden, 3, 3, 3, seed=0),
        drawn(hidden, seed=1),
        drawn(hidden, seed=8),
        ones=drawn(hidden, 1, 3, 3, seed=9),
        padding=1,
    )
    second = Kernel(drawn(hidden, hidden, 1, 1, seed=2), drawn(hidden, seed=3))
    last = Kernel(
        drawn(2, hidden, 3, 3, seed=5),
        drawn(2, seed=6),
        drawn(2, seed=10),
        edge=drawn(2, 9, seed=4),
        outside=outside,
        padding=1,
    )
    return [first, second, last]


def plain_convolutions(x: Tensor, given: Sequence[Kernel]) -> Tensor:
    for index, kernel in enumerate(given):
        weight = kernel.weight if kernel.scale is None else kernel.weight * kernel.scale.view(-1, 1, 1, 1)
        if kernel.ones is not None:
            x, weight = (
                torch.cat((x, torch.ones_like(x[:, :1])), dim=1),
                torch.cat((weight, kernel.ones), dim=1),
            )
        x = F.conv2d(x, weight, kernel.bias, padding=kernel.padding)
        if kernel.edge is not None and kernel.outside is not None:
            x = x + (kernel.edge @ kernel.outside.t()).view(1, -1, *x.shape[2:])
        x = x.relu() if index + 1 < len(given) else x
    return x


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_rectified_convolutions_are_the_plain_composition(dtype: torch.dtype, tolerance: float) -> None:
    given, x = kernels(dtype), draw(3, 3, 4, 4, seed=7, dtype=dtype)
    leaves = [x, *(t for kernel in given for t in kernel[:TENSORS] if t is not None)]
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
    assert all(
        t.grad is not None and t.grad.dtype == t.dtype
        for kernel in given
        for t in kernel[:TENSORS]
        if t is not None
    )


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
    assert torch.equal(channel_rows(x).view(5, 3, 2, 4).transpose(0, 1), x)
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
    assert torch.equal(before_relu_(grad.clone(), numbers.detach().relu(), batched=False), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_broken_weight_gives_no_finite_numbers(dtype: torch.dtype, training: bool) -> None:
    net = ConvNet(3, 4, 64).train(training)
    torch.nn.init.normal_(net.last.conv.weight)
    with torch.no_grad():
        net.first.conv.weight[0, 0, 1, 1] = -torch.nan
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            assert bool(net(torch.ones(8, 3, 16, 16)).isnan().any())


@pytest.mark.parametrize(("name", "order", "layout"), KINDS)
def test_a_fused_affine_map_is_reversed_with_its_gradients(
    name: ScaleMapName, order: AffineOrder, layout: ParameterLayout
) -> None:
    x, parameters = draw(3, 2, 4, 4), draw(3, 4, 4, 4, seed=1)
    how = AffineMap(ScaleMap(name, 2), order, layout)
    z, log_det = affine(x, parameters, how)
    grad_z, grad_log_det = torch.randn_like(z), torch.randn_like(log_det)
    expected = (x, *torch.autograd.grad((z, log_det), (x, parameters), (grad_z, grad_log_det)))
    with torch.no_grad():
        found = affine_reverse(z, parameters, grad_z, grad_log_det, how)
        again = affine(x, parameters, how)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
    assert torch.equal(again[0], z) and torch.equal(again[1], log_det)


@pytest.mark.parametrize("name", ["glow-tiny", "flowpp-tiny", "realnvp-tiny"])
@pytest.mark.parametrize("memory", ["store", "invertible"])
def test_second_derivatives_are_refused_rather_than_wrong(name: str, memory: MemoryMode) -> None:
    overrides = {} if name != "realnvp-tiny" else {"network": "conv", "network_batch_norm": False}
    flow = randomize(flowzoo.create(name, **overrides).double(), seed=1)
    flow.set_memory(memory)
    x = draw(2, *flow.image_shape).sigmoid().detach().requires_grad_()
    z, log_det = flow.bijector(x)
    with pytest.raises(InputError, match="second derivatives"):
        torch.autograd.grad(z.sum() + log_det.sum(), x, create_graph=True)


def test_evaluation_equals_training_where_its_relus_are_fused() -> None:
    net = ConvNet(3, 8, 64)
    torch.nn.init.normal_(net.last.conv.weight)
    x = torch.randn(16, 3, 16, 16)
    with torch.no_grad():
        expected = net.train()(x)
        torch.testing.assert_close(net.eval()(x), expected, rtol=1e-4, atol=1e-5)


def test_an_overflow_stays_visible_in_evaluation() -> None:
    net = ConvNet(3, 8, 64, normalization="none").eval()
    with torch.no_grad():
        for layer in (net.first, net.second, net.last):
            layer.conv.weight.copy_(3e38 * torch.randn_like(layer.conv.weight).sign())
        assert not bool(net(torch.ones(8, 3, 16, 16)).isfinite().any())


def test_a_fused_optimizer_in_eval_mode_leaves_no_stale_kernel() -> None:
    flow = randomize(flowzoo.create("glow-tiny"), seed=1, scale=0.05).eval()
    x = random_images(flow, 4, seed=0)
    noise = flow.draw_noise(4)
    with torch.no_grad():
        flow.log_prob(x, noise=noise)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2, fused=True)
    flow.log_prob(x, noise=noise).sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        found = flow.log_prob(x, noise=noise)
    torch.testing.assert_close(found, flow.log_prob(x, noise=noise).detach(), rtol=1e-4, atol=1e-2)
