"""Convolutions with ReLUs between them as one operation, with a backward pass of its own.

It spares memory and passes over it: gradients behind a ReLU are overwritten by those before it, which a composition
of operations must not do. Evaluation makes ReLUs part of oneDNN's convolutions. These turn NaN into 0, so it does
that only where no kernel in front of one is broken or so large that sums overflow: such a model must not give finite
numbers. A NaN among a coupling's inputs stays visible in the half that the coupling passes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.derivatives import first_derivative
from flowzoo.nets.relu import before_relu_, relu_

# Outputs from which on a call of oneDNN, which costs more than torch's own, is the faster one.
WORTH_PACKING = 2**14

# Weights of which all together are below this in size let inputs below 1e20 through two layers and more.
SMALL = 1e6


class Kernel(NamedTuple):
    """A convolution that keeps height and width: w * x + b + e * (1 - inside).

    Attributes:
        weight: w, ``(O, I, k, k)``; in evaluation possibly in oneDNN's own layout.
        bias: b, ``(O,)``.
        edge: e, ``(O, k k)``: what each tap adds where it is outside of the image, or None.
        outside: With e, which taps at a pixel are outside, ``(H W, k k)``.
        padding: k // 2.
        ones: Whether a channel of ones is to be added to the input: I counts it.
        small: Whether weights and bias are known to be so small that no sum of their products overflows.
    """

    weight: Tensor
    bias: Tensor
    edge: Tensor | None
    outside: Tensor | None
    padding: int
    ones: bool
    small: bool = False

    def to(self, dtype: torch.dtype) -> Kernel:
        """The kernel in this dtype."""
        if self.bias.dtype == dtype:
            return self
        edge = None if self.edge is None else self.edge.to(dtype)
        return self._replace(weight=self.weight.to(dtype), bias=self.bias.to(dtype), edge=edge)

    def packed(self, batch: int, size: torch.Size) -> Kernel:
        """The kernel as oneDNN wants it for such inputs, where that pays; worth it if it is used again."""
        outputs = batch * math.prod(size) * self.bias.numel()
        if outputs < WORTH_PACKING or not _has_onednn(self.weight):
            return self
        small = bool(self.weight.abs().sum() + self.bias.abs().sum() < SMALL)
        pads, ones = [self.padding] * 2, [1, 1]
        given = [batch, self.weight.shape[1], *size]
        weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, pads, ones, ones, 1, given)
        return self._replace(weight=weight, small=small)


def watched(layers: Iterable[nn.Module]) -> bool:
    """Whether someone has hooked into these layers, so that each must be called."""
    return any(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
        for layer in layers
    )


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
        return _convolve(x, [kernel.to(dtype) for kernel in kernels])[-1]
    constants = [kernel[3:6] for kernel in kernels]
    tensors = [tensor for kernel in kernels for tensor in kernel[:3]]
    out: Tensor = _RectifiedConvolutions.apply(x, dtype, constants, *tensors)
    return out


class _RectifiedConvolutions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dtype: torch.dtype, constants: list[tuple[Any, ...]], *tensors: Tensor
    ) -> Tensor:
        own = zip(tensors[0::3], tensors[1::3], tensors[2::3], strict=True)
        kernels = [Kernel(*t, *rest).to(dtype) for t, rest in zip(own, constants, strict=True)]
        *inputs, out = _convolve(x, kernels)
        ctx.constants, ctx.dtypes = constants, (x.dtype, tensors[0].dtype)
        ctx.save_for_backward(*inputs, *(kernel.weight for kernel in kernels))
        return out

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.constants)
        kept = ctx.saved_tensors
        inputs, weights = kept[:count], kept[count:]
        of_x, of_kernels = ctx.dtypes
        gradients: list[Tensor | None] = []
        for i in reversed(range(count)):
            outside, padding, ones = ctx.constants[i]
            grad_edge = None
            if outside is not None:
                # With the channels of a pixel side by side both steps read rows.
                rows = grad.sum(0).permute(1, 2, 0).reshape(-1, grad.shape[1])
                grad_edge = rows.to(of_kernels).t() @ outside
            wanted = i > 0 or ctx.needs_input_grad[0]
            grad, grad_weight, grad_bias = _convolution_backward(grad, inputs[i], weights[i], padding, wanted)
            gradients[:0] = grad_weight.to(of_kernels), grad_bias.to(of_kernels), grad_edge
            if ones and wanted:
                grad = grad[:, :-1]
            if i > 0:
                grad = before_relu_(grad, inputs[i][:, :-1] if ones else inputs[i])
        return grad.to(of_x) if wanted else None, None, None, *gradients


def _convolve(x: Tensor, kernels: Sequence[Kernel]) -> list[Tensor]:
    """What goes into each convolution, channels last in memory, and the output."""
    dtype = kernels[0].bias.dtype
    inputs, last = [], len(kernels) - 1
    small = all(kernel.small for kernel in kernels[:-1])
    for index, kernel in enumerate(kernels):
        x = _with_ones(x, dtype) if kernel.ones else x.to(dtype, memory_format=torch.channels_last)
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
    if kernel.weight.is_mkldnn:
        pads, ones = [kernel.padding] * 2, [1, 1]
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
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
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients at the input, if wanted, at the weight and at the bias."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
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
        [wanted, True, True],
    )
    return found
