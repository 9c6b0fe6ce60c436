"""Convolutions with ReLUs between them as one operation.

It spares memory and passes over it: gradients after a ReLU are overwritten by those before it, which a composition of
operations must not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.ops.autograd import apply, in_forward_dtypes, needs_plain, plain_backward
from flowzoo.ops.kernels import (
    TENSORS,
    Kernel,
    add_to_each_,
    kernels_of,
    structure_of,
    tensors_of,
    with_ones,
)
from flowzoo.ops.products import (
    convolved,
    convolved_by_taps,
    from_pixels,
    is_product,
    is_thin,
    pixels,
    summed,
)
from flowzoo.ops.relu import relu_, relu_backward_


def convolutions(x: Tensor, kernels: Sequence[Kernel], dtype: torch.dtype) -> Tensor:
    """Convolutions with ReLUs between them, with gradients: ``(B, C, H, W)`` to ``(B, O, H, W)`` in ``dtype``."""
    out: Tensor = apply(_Convolutions, x, dtype, kernels, *tensors_of(kernels))
    return out


def convolutions_plain(x: Tensor, kernels: Sequence[Kernel], dtype: torch.dtype) -> Tensor:
    """The same by torch's own operations."""
    x = x.to(dtype)
    for i, kernel in enumerate(kernel.merged(dtype) for kernel in kernels):
        x = x.relu() if i else x
        if kernel.joined:
            x = torch.cat((x, x.new_ones(x.shape[0], 1, *x.shape[2:])), dim=1)
        x, edge = F.conv2d(x, kernel.weight, kernel.bias, padding=kernel.padding), kernel.at_the_edge()
        x = x if edge is None else x + edge.view(*x.shape[2:], -1).permute(2, 0, 1)
    return x


class Kept(NamedTuple):
    """The constants that a backward pass through convolutions needs besides the saved tensors."""

    constants: list[tuple[Any, ...]]
    scaled: list[bool]
    dtype: torch.dtype


def merge(kernels: Sequence[Kernel], dtype: torch.dtype) -> tuple[list[Kernel], list[Tensor], Kept]:
    """The merged kernels, and the tensors to save and facts to keep for :func:`backward`."""
    merged = [kernel.merged(dtype) for kernel in kernels]
    originals = [t for k in kernels if k.scale is not None for t in (k.weight, k.scale)]
    scaled = [kernel.scale is not None for kernel in kernels]
    kept = Kept([kernel[TENSORS:] for kernel in merged], scaled, kernels[0].bias.dtype)
    return merged, [*(kernel.weight for kernel in merged), *originals], kept


class _Convolutions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dtype: torch.dtype, kernels: Sequence[Kernel], *tensors: Tensor
    ) -> Tensor:
        merged, saved, ctx.kept = merge(kernels, dtype)
        *inputs, out = convolve(x, merged)
        ctx.structure, ctx.dtype, ctx.counts = structure_of(kernels), dtype, (len(tensors), len(inputs))
        ctx.save_for_backward(x, *tensors, *inputs, *saved)
        return out

    @staticmethod
    @in_forward_dtypes
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        tensors, saved = saved[: ctx.counts[0]], saved[ctx.counts[0] :]
        wanted = (ctx.needs_input_grad[0], *ctx.needs_input_grad[3:])
        if needs_plain((grad,)):

            def plain(x: Tensor, *tensors: Tensor) -> tuple[Tensor]:
                return (convolutions_plain(x, kernels_of(ctx.structure, tensors), ctx.dtype),)

            grad_x, *gradients = plain_backward(plain, (x, *tensors), (grad,), wanted)
        else:
            grad_x, own = backward(grad, saved, ctx.kept, wanted=wanted[0])
            gradients = list(own)
        return None if grad_x is None else grad_x.to(x.dtype), None, None, *gradients


def backward(
    grad: Tensor, saved: Sequence[Tensor], kept: Kept, *, wanted: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradients at the input, if wanted, and at all of :func:`tensors_of`.

    Args:
        grad: The gradient at the output.
        saved: The inputs of the convolutions, and the tensors that :func:`merge` gave.
        kept: The facts that it gave.
        wanted: Whether the gradient at the input is wanted.
    """
    count = len(kept.constants)
    inputs, weights, originals = saved[:count], saved[count : 2 * count], list(saved[2 * count :])
    gradients: list[Tensor] = []
    found: Tensor | None = None
    for i in reversed(range(count)):
        outside, padding, joined, _ = kept.constants[i]
        grad_edge = grad_scale = grad_ones = None
        if outside is not None:
            # With the channels of a pixel side by side both steps read rows.
            rows = grad.sum(0).permute(1, 2, 0).reshape(-1, grad.shape[1])
            grad_edge = rows.to(kept.dtype).t() @ outside
        rectified = inputs[i]
        found, grad_weight, grad_bias = _convolution_backward(
            grad, rectified, weights[i], padding, wanted=i > 0 or wanted
        )
        if grad_bias.dtype != kept.dtype:
            grad_weight, grad_bias = grad_weight.to(kept.dtype), grad_bias.to(kept.dtype)
        if joined:
            grad_weight, grad_ones = grad_weight[:, :-1], grad_weight[:, -1:]
            rectified, found = rectified[:, :-1], None if found is None else found[:, :-1]
        if kept.scaled[i]:
            scale, weight = originals.pop(), originals.pop()
            grad_scale = (grad_weight * weight).sum((1, 2, 3))
            grad_weight = grad_weight * scale.view(-1, 1, 1, 1)
        own = (grad_weight, grad_bias, grad_scale, grad_edge, grad_ones)
        gradients[:0] = [gradient for gradient in own if gradient is not None]
        if i > 0 and found is not None:
            grad = relu_backward_(found, rectified)
    return found, gradients


def convolve(x: Tensor, kernels: Sequence[Kernel]) -> list[Tensor]:
    """The inputs of convolutions with merged kernels, channels last in memory, and the output."""
    dtype = kernels[0].bias.dtype
    inputs: list[Tensor] = []
    for kernel in kernels:
        x = relu_(x) if inputs else x
        x = with_ones(x, dtype) if kernel.joined else x.to(dtype, memory_format=torch.channels_last)
        inputs.append(x)
        x, edge = convolved(x, kernel.weight, kernel.bias, kernel.padding), kernel.at_the_edge()
        x = x if edge is None else add_to_each_(edge, x)
    return [*inputs, x]


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, padding: int, wanted: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients at the input, if wanted, at the weight and at the bias."""
    if is_product(weight):
        rows = pixels(grad)
        grad_weight = (rows.t() @ pixels(x)).view(weight.shape)
        grad_x = from_pixels(rows @ weight.flatten(1), like=x) if wanted else None
        return grad_x, grad_weight, summed(rows)
    # oneDNN's own sum for the bias is the slower one in float32.
    apart = x.dtype == torch.float32 and x.device.type == "cpu"
    backwards = weight.transpose(0, 1)
    by_taps = wanted and is_thin(backwards, x.shape[0], x.shape[2:])
    found, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        [weight.shape[0]],
        [1, 1],
        [padding, padding],
        [1, 1],
        False,
        [0, 0],
        1,
        [wanted and not by_taps, True, not apart],
    )
    if by_taps:
        found = convolved_by_taps(grad, backwards.flip(2, 3))
    return found, grad_weight, summed(pixels(grad)) if apart else grad_bias
