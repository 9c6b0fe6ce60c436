"""The tensor functions equal plain torch in float64: values, gradients, second and many derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.bijectors import ScaleMap
from flowzoo.ops.affine import AffineMap, AffineOrder, ParameterLayout, affine, affine_inverse, shift_and_raw
from flowzoo.ops.conv_stack import convolutions
from flowzoo.ops.kernels import Kernel, outside_taps
from flowzoo.ops.linears import linears
from flowzoo.ops.relu import relu_, relu_backward_
from flowzoo.ops.scales import OFFSETS

KINDS = list(itertools.product(OFFSETS, get_args(AffineOrder), get_args(ParameterLayout)))
Function = Callable[..., Sequence[Tensor]]


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def assert_alike(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def derivatives(function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Values; gradients; gradients of those; and many gradients at once."""
    outputs = function(*inputs)
    loss = sum(out.sin().sum() for out in outputs)
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    graph = torch.autograd.grad(loss, inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in graph), inputs, allow_unused=True)
    rows = torch.stack([torch.ones_like(outputs[0]), outputs[0].detach().cos()])
    many = torch.autograd.grad(function(*inputs)[0], inputs, rows, is_grads_batched=True)
    zeros = [torch.zeros_like(t) if g is None else g for g, t in zip(second, inputs, strict=True)]
    return [*(out.detach() for out in outputs), *first, *(g.detach() for g in graph), *zeros, *many]


@pytest.mark.parametrize(("name", "order", "layout"), KINDS)
def test_affine(name: str, order: AffineOrder, layout: ParameterLayout) -> None:
    x, parameters = draw(3, 2, 4, 3), draw(3, 4, 4, 3, seed=1)
    scale_map, elementwise = ScaleMap(name, 2), AffineMap(name, order, layout)  # type: ignore[arg-type]

    def plain(x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = shift_and_raw(parameters, layout)
        log_scale = scale_map(raw)
        z = (x + shift) * log_scale.exp() if order == "shift-scale" else x * log_scale.exp() + shift
        return z, log_scale.flatten(1).sum(1)

    found = derivatives(lambda a, b: affine(a, b, elementwise, plain), (x, parameters))
    assert_alike(found, derivatives(plain, (x, parameters)))
    with torch.no_grad():
        z, log_det = affine(x, parameters, elementwise, plain)
        assert_alike((z, log_det), plain(x, parameters))
        assert_alike(affine_inverse(z, parameters, elementwise), (x, -log_det))


def test_linears() -> None:
    x, shapes = draw(5, 4), [(6, 4), (7, 6), (3, 7)]
    weights = [draw(*shape, seed=i) for i, shape in enumerate(shapes, 1)]
    biases = [draw(shape[0], seed=i) for i, shape in enumerate(shapes, 5)]

    def plain(x: Tensor, *parameters: Tensor) -> tuple[Tensor]:
        for i in range(3):
            x = F.linear(x.relu() if i else x, parameters[i], parameters[3 + i])
        return (x,)

    inputs = (x, *weights, *biases)
    found = derivatives(lambda x, *ps: (linears(x, ps[:3], ps[3:]),), inputs)
    assert_alike(found, derivatives(plain, inputs))


@pytest.mark.parametrize("extra", ["none", "scale", "edge", "ones", "scale and edge", "scale and ones"])
def test_convolutions(extra: str) -> None:
    size = torch.Size((4, 5))
    x, first, last = draw(2, 3, *size), draw(6, 3, 3, 3, seed=1), draw(4, 6, 1, 1, seed=2)
    biases, scale = (draw(6, seed=3), draw(4, seed=4)), draw(6, seed=5)
    edge, ones = draw(6, 9, seed=6), draw(6, 1, 3, 3, seed=7)
    outside = outside_taps(size, 3, torch.float64, x.device)

    def kernels(w: Tensor, v: Tensor, b: Tensor, c: Tensor, *more: Tensor) -> list[Kernel]:
        rest = list(more)
        kernel = Kernel(w, b, padding=1)
        if "scale" in extra:
            kernel = kernel._replace(scale=rest.pop(0))
        if "edge" in extra:
            kernel = kernel._replace(edge=rest.pop(0), outside=outside)
        if "ones" in extra:
            kernel = kernel._replace(ones=rest.pop(0))
        return [kernel, Kernel(v, c)]

    def plain(x: Tensor, w: Tensor, v: Tensor, b: Tensor, c: Tensor, *more: Tensor) -> tuple[Tensor]:
        rest = list(more)
        w = w * rest.pop(0).view(-1, 1, 1, 1) if "scale" in extra else w
        h = F.conv2d(x, w, b, padding=1)
        if "edge" in extra:
            indicator = F.pad(torch.zeros(1, 1, *size, dtype=x.dtype), (1,) * 4, value=1.0)
            h = h + F.conv2d(indicator, rest.pop(0).view(6, 1, 3, 3))
        if "ones" in extra:
            h = h + F.conv2d(torch.ones_like(x[:, :1]), rest.pop(0), padding=1)
        return (F.conv2d(h.relu(), v, c),)

    chosen = {"scale": scale, "edge": edge, "ones": ones}
    inputs = (x, first, last, *biases, *(t for key, t in chosen.items() if key in extra))
    found = derivatives(lambda x, *ts: (convolutions(x, kernels(*ts), x.dtype),), inputs)
    assert_alike(found, derivatives(plain, inputs))


def test_relu_of_bfloat16_keeps_nan_and_infinity() -> None:
    values = torch.tensor([-torch.inf, -3.0, -0.0, 0.0, 2.0, torch.inf, torch.nan], dtype=torch.bfloat16)
    found = relu_(values.clone())
    torch.testing.assert_close(found, values.relu(), equal_nan=True)
    grad = torch.ones_like(values)
    expected = torch.ops.aten.threshold_backward(grad, values.relu(), 0)
    torch.testing.assert_close(relu_backward_(grad.clone(), found)[:-1], expected[:-1])
