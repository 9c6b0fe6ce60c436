"""Convolutions with ReLUs between them as one operation, with a backward pass of its own.

It spares memory and passes over it: gradients behind a ReLU are overwritten by those before it, which a composition
of operations must not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flowzoo.nets.derivatives import first_derivative, is_batched
from flowzoo.nets.kernels import TENSORS, Kernel, add_to_each_, tensors_of, with_ones
from flowzoo.nets.products import (
    convolved,
    convolved_by_taps,
    from_pixels,
    is_product,
    is_thin,
    pixels,
    summed,
)
from flowzoo.nets.relu import before_relu_, relu_
from flowzoo.nets.settled import settle


class RectifiedNetwork(nn.Module):
    """Base of networks ``(B, C, H, W)`` to ``(B, O, H, W)`` that may be convolutions with ReLUs between them alone."""

    def kernels(self, x: Tensor, dtype: torch.dtype) -> list[Kernel] | None:
        """The convolutions for inputs like ``x`` but for their channels, or None if it has to be called this time."""
        return None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__ and "kernels" not in cls.__dict__:
            # Its forward pass is another one than that of the class whose kernels it would inherit.
            cls.kernels = RectifiedNetwork.kernels  # type: ignore[method-assign]


def computed_in(x: Tensor) -> torch.dtype:
    """The dtype in which networks convolve this: its own, or autocast's."""
    if x.dtype == torch.float64 or not torch._C._is_any_autocast_enabled():
        return x.dtype
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return x.dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def rectified_convolutions(x: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    """Convolutions with ReLUs between them: ``(B, C, H, W)`` to ``(B, O, H, W)``, computed in :func:`computed_in`."""
    dtype = computed_in(x)
    if not torch.is_grad_enabled():
        return settle([kernel.merged(dtype) for kernel in kernels])(x)
    out: Tensor = _RectifiedConvolutions.apply(x, dtype, kernels, *tensors_of(kernels))
    return out


class Kept(NamedTuple):
    """What a backward pass through convolutions needs besides the tensors that are saved."""

    constants: list[tuple[Any, ...]]
    scaled: list[bool]
    dtype: torch.dtype


def put_together(kernels: Sequence[Kernel], dtype: torch.dtype) -> tuple[list[Kernel], list[Tensor], Kept]:
    """The merged kernels, and what to save and to keep for :func:`pull_back`."""
    merged = [kernel.merged(dtype) for kernel in kernels]
    originals = [t for k in kernels if k.scale is not None for t in (k.weight, k.scale)]
    scaled = [kernel.scale is not None for kernel in kernels]
    kept = Kept([kernel[TENSORS:] for kernel in merged], scaled, kernels[0].bias.dtype)
    return merged, [*(kernel.weight for kernel in merged), *originals], kept


class _RectifiedConvolutions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dtype: torch.dtype, kernels: Sequence[Kernel], *tensors: Tensor
    ) -> Tensor:
        kernels, saved, ctx.kept = put_together(kernels, dtype)
        *inputs, out = convolve(x, kernels)
        ctx.dtype = x.dtype
        ctx.save_for_backward(*inputs, *saved)
        return out

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted, batched = ctx.needs_input_grad[0], is_batched(grad)
        found, gradients = pull_back(grad, ctx.saved_tensors, ctx.kept, wanted=wanted, batched=batched)
        return None if found is None else found.to(ctx.dtype), None, None, *gradients


def pull_back(
    grad: Tensor, saved: Sequence[Tensor], kept: Kept, *, wanted: bool, batched: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradients at the input, if wanted, and at all of :func:`tensors_of`.

    Args:
        grad: The gradient at the output.
        saved: What went into each convolution, and the tensors that :func:`put_together` gave.
        kept: What else it gave.
        wanted: Whether the gradient at the input is.
        batched: Whether these are many gradients at once, which torch cannot write in place.
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
        further = i > 0 or wanted
        rectified = inputs[i]
        found, grad_weight, grad_bias = _convolution_backward(
            grad, rectified, weights[i], padding, further, batched
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
            grad = before_relu_(found, rectified, batched)
    return found, gradients


def convolve(x: Tensor, kernels: Sequence[Kernel]) -> list[Tensor]:
    """What goes into each convolution with merged kernels, channels last in memory, and the output."""
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
    grad: Tensor, x: Tensor, weight: Tensor, padding: int, wanted: bool, batched: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients at the input, if wanted, at the weight and at the bias."""
    if is_product(weight) and not batched:
        rows = pixels(grad)
        grad_weight = (rows.t() @ pixels(x)).view(weight.shape)
        grad_x = from_pixels(rows @ weight.flatten(1), like=x) if wanted else None
        return grad_x, grad_weight, summed(rows)
    # oneDNN's own sum for the bias is the slower one in float32.
    apart = x.dtype == torch.float32 and x.device.type == "cpu" and not batched
    backwards = weight.transpose(0, 1)
    by_taps = wanted and not batched and is_thin(backwards, x.shape[0], x.shape[2:])
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
