"""Convolutions with ReLUs between them as one operation, with a backward pass of its own.

It spares memory and passes over it: gradients behind a ReLU are overwritten by those before it, which a composition
of operations must not do. Evaluation makes ReLUs part of oneDNN's convolutions. These turn NaN into 0, so it does
that only where no kernel in front of one is broken or so large that sums overflow: such a model must not give finite
numbers. A NaN among a coupling's inputs stays visible in the half that the coupling passes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.derivatives import first_derivative, is_batched
from flowzoo.nets.relu import before_relu_, relu_

# Outputs from which on a call of oneDNN, which costs more than torch's own, is the faster one.
WORTH_PACKING = 2**14

# Pixels of a batch up to which a 1x1 convolution is faster as a product of matrices; backwards it always is.
FEW_PIXELS = 2**11

# Weights of which all together are below this in size let inputs below 1e20 through two layers and more.
SMALL = 1e6


class Kernel(NamedTuple):
    """A convolution that keeps height and width: (s w) * x + o * 1 + b + e * (1 - inside).

    Whatever is large is multiplied right before it is convolved with, one layer at a time, while it is in the cache.

    Attributes:
        weight: w, ``(O, I, k, k)``; in evaluation possibly in oneDNN's own layout.
        bias: b, ``(O,)``.
        scale: s, ``(O,)``, or None for 1.
        edge: e, ``(O, k k)``: what each tap adds where it is outside of the image, or None.
        ones: o, ``(O, 1, k, k)``: the taps of a channel of ones to be added to the input, or None.
        outside: With e, which taps at a pixel are outside, ``(H W, k k)``.
        padding: k // 2.
        joined: Whether w has taken in o, as its last channel.
        small: Whether weights and bias are known to be so small that no sum of their products overflows.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor | None = None
    edge: Tensor | None = None
    ones: Tensor | None = None
    outside: Tensor | None = None
    padding: int = 0
    joined: bool = False
    small: bool = False

    def merged(self, dtype: torch.dtype) -> Kernel:
        """The kernel in this dtype, its scale and its channel of ones in its weight."""
        if self.scale is None and self.ones is None and self.bias.dtype == dtype:
            return self
        weight, bias, edge = self.weight, self.bias, self.edge
        if self.scale is not None:
            weight = weight * self.scale.view(-1, 1, 1, 1)
        if self.ones is not None:
            weight = torch.cat((weight, self.ones), dim=1)
        if bias.dtype != dtype:
            weight, bias = weight.to(dtype), bias.to(dtype)
            edge = None if edge is None else edge.to(dtype)
        joined = self.joined or self.ones is not None
        return Kernel(weight, bias, None, edge, None, self.outside, self.padding, joined, self.small)

    def packed(self, batch: int, size: torch.Size) -> Kernel:
        """A merged kernel as oneDNN wants it for such inputs, where that pays; worth it if it is used again."""
        pixels = batch * math.prod(size)
        if pixels * self.bias.numel() < WORTH_PACKING or not _has_onednn(self.weight):
            return self
        small = bool(self.weight.abs().sum() + self.bias.abs().sum() < SMALL)
        if pixels <= FEW_PIXELS and _is_product(self.weight):
            return self._replace(small=small)
        pads, ones = [self.padding] * 2, [1, 1]
        given = [batch, self.weight.shape[1], *size]
        weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, pads, ones, ones, 1, given)
        return self._replace(weight=weight, small=small)


TENSORS = 5
"""Fields of a kernel that have gradients."""


class RectifiedNetwork(nn.Module):
    """Base of networks ``(B, C, H, W)`` to ``(B, O, H, W)`` that may be convolutions with ReLUs between them alone."""

    def kernels(self, x: Tensor, dtype: torch.dtype) -> list[Kernel] | None:
        """The convolutions for such an input and dtype, or None if the network has to be called this time."""
        return None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__ and "kernels" not in cls.__dict__:
            # Its forward pass is another one than that of the class whose kernels it would inherit.
            cls.kernels = RectifiedNetwork.kernels  # type: ignore[method-assign]


def computed_in(x: Tensor) -> torch.dtype:
    """The dtype in which networks convolve this: its own, or autocast's."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.amp.is_autocast_available(device):
        return x.dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def rectified_convolutions(x: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    """Convolutions with ReLUs between them: ``(B, C, H, W)`` to ``(B, O, H, W)``, computed in :func:`computed_in`."""
    dtype = computed_in(x)
    if not torch.is_grad_enabled():
        return convolve(x, [kernel.merged(dtype) for kernel in kernels])[-1]
    out: Tensor = _RectifiedConvolutions.apply(x, dtype, kernels, *tensors_of(kernels))
    return out


def tensors_of(kernels: Sequence[Kernel]) -> list[Tensor]:
    """All of kernels that has gradients."""
    fields = (field for kernel in kernels for field in kernel[:TENSORS])
    return [field for field in fields if isinstance(field, Tensor)]


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
        found, gradients = pull_back(grad, ctx.saved_tensors, ctx.kept, wanted=ctx.needs_input_grad[0])
        return None if found is None else found.to(ctx.dtype), None, None, *gradients


def pull_back(
    grad: Tensor, saved: Sequence[Tensor], kept: Kept, *, wanted: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradients at the input, if wanted, and at all of :func:`tensors_of`.

    Args:
        grad: The gradient at the output.
        saved: What went into each convolution, and the tensors that :func:`put_together` gave.
        kept: What else it gave.
        wanted: Whether the gradient at the input is.
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
        found, grad_weight, grad_bias = _convolution_backward(grad, rectified, weights[i], padding, further)
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
            grad = before_relu_(found, rectified)
    return found, gradients


def convolve(x: Tensor, kernels: Sequence[Kernel]) -> list[Tensor]:
    """What goes into each convolution, channels last in memory, and the output."""
    dtype = kernels[0].bias.dtype
    inputs, last = [], len(kernels) - 1
    small = all(kernel.small for kernel in kernels[:-1])
    for index, kernel in enumerate(kernels):
        x = _with_ones(x, dtype) if kernel.joined else x.to(dtype, memory_format=torch.channels_last)
        inputs.append(x)
        fused = index < last and small and kernel.weight.is_mkldnn and kernel.edge is None
        x = _convolution(x, kernel, "relu" if fused else "none")
        if index < last and not fused:
            x = relu_(x)
    return [*inputs, x]


def _with_ones(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` and a channel of ones, channels last in memory."""
    batch, channels, height, width = x.shape
    out = x.new_empty((batch, height, width, channels + 1), dtype=dtype).permute(0, 3, 1, 2)
    out[:, :-1].copy_(x)
    out[:, -1].fill_(1)
    return out


def _has_onednn(x: Tensor) -> bool:
    """Whether oneDNN can be called for it; the operations are torch's own and may go with another version."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def _convolution(x: Tensor, kernel: Kernel, then: str = "none") -> Tensor:
    if _is_product(kernel.weight) and x.numel() <= FEW_PIXELS * x.shape[1]:
        out = _from_pixels(torch.addmm(kernel.bias, _pixels(x), kernel.weight.flatten(1).t()), like=x)
    elif kernel.weight.is_mkldnn:
        pads, ones = [kernel.padding] * 2, [1, 1]
        out = torch.ops.mkldnn._convolution_pointwise(
            x, kernel.weight, kernel.bias, pads, ones, ones, 1, then, [], ""
        )
    else:
        out = F.conv2d(x, kernel.weight, kernel.bias, padding=kernel.padding)
    if kernel.edge is not None and kernel.outside is not None:
        # The same for every image, and laid out as the output is.
        rows = kernel.outside.to(kernel.edge.dtype) @ kernel.edge.t()
        out.add_(rows.view(*x.shape[2:], -1).permute(2, 0, 1))
    return out


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, padding: int, wanted: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients at the input, if wanted, at the weight and at the bias."""
    if _is_product(weight) and not is_batched(grad):
        rows = _pixels(grad)
        grad_weight = (rows.t() @ _pixels(x)).view(weight.shape)
        grad_x = _from_pixels(rows @ weight.flatten(1), like=x) if wanted else None
        return grad_x, grad_weight, rows.sum(0)
    # oneDNN's own sum for the bias is the slower one in float32.
    apart = x.device.type == "cpu" and x.dtype == torch.float32 and not is_batched(grad)
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
        [wanted, True, not apart],
    )
    return found, grad_weight, _pixels(grad).sum(0) if apart else grad_bias


def _is_product(weight: Tensor) -> bool:
    """Whether a convolution with such a weight may better be computed as a product of matrices."""
    return weight.device.type == "cpu" and not weight.is_mkldnn and weight.shape[2:] == (1, 1)


def _pixels(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` as ``(B H W, C)``: a view where the channels of a pixel lie side by side."""
    return x.movedim(1, -1).flatten(0, -2)


def _from_pixels(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`_pixels`: ``(B H W, C)`` to ``(B, C, H, W)`` with B, H and W of ``like``."""
    return rows.view(like.shape[0], *like.shape[2:], rows.shape[1]).movedim(-1, 1)
