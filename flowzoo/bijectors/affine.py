"""The elementwise part of an affine coupling as one operation with a backward pass of its own.

A composition of elementwise operations is a pass over the activations for each of them, forwards and backwards, and
keeps most of what it computes. This one keeps two tensors, from which every derivative follows.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from flowzoo.bijectors.base import sum_per_item
from flowzoo.bijectors.scale_maps import ScaleMap
from flowzoo.nets.derivatives import first_derivative, is_batched
from flowzoo.nets.kernels import Kernel

AffineOrder = Literal["shift-scale", "scale-shift"]
ParameterLayout = Literal["halves", "interleaved"]


def shift_and_raw(parameters: Tensor, layout: ParameterLayout) -> tuple[Tensor, Tensor]:
    """Views of a network's output ``(B, 2 C, ...)`` as shifts and raw log-scales, both ``(B, C, ...)``."""
    if layout == "interleaved":
        return parameters[:, 0::2], parameters[:, 1::2]
    shift, raw = parameters.chunk(2, dim=1)
    return shift, raw


class AffineMap(NamedTuple):
    """x to (x + t) s or x s + t, with t and s of a network's output; all methods are outside of autograd.

    Attributes:
        scale_map: Raw log-scales to scales; one that learns nothing (:attr:`ScaleMap.is_fixed`).
        order: ``"shift-scale"`` is (x + t) s, ``"scale-shift"`` is x s + t.
        layout: How shifts and raw log-scales share the channels of the network's output.
        offset_added: Whether raw log-scales come with :attr:`ScaleMap.offset` added.
    """

    scale_map: ScaleMap
    order: AffineOrder
    layout: ParameterLayout
    offset_added: bool = False

    @property
    def keeps_output(self) -> bool:
        """Whether :meth:`pull` needs the map's output; else it needs the input."""
        return self.order == "shift-scale"

    def in_bias(self, kernel: Kernel) -> tuple[AffineMap, Kernel]:
        """The same with the offset in the bias of the network's last convolution, outside of autograd."""
        bias = kernel.bias.detach().clone()
        _, raw = shift_and_raw(bias[None], self.layout)
        raw.add_(self.scale_map.offset)
        return self._replace(offset_added=True), kernel._replace(bias=bias)

    def map(self, x: Tensor, parameters: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The mapped x, the sum of log s for each item, and s.

        Args:
            x: ``(B, C, ...)``.
            parameters: ``(B, 2 C, ...)`` in the dtype of ``x`` or a narrower one.
            out: Where the mapped x goes, which may be ``x``; a new tensor if not given.
        """
        out = torch.empty_like(x) if out is None else out
        shift, raw = shift_and_raw(parameters, self.layout)
        scale, log_scale = self.scale_map.scale_into(torch.empty_like(x), raw, self.offset_added)
        if self.order == "shift-scale":
            torch.add(x, shift, out=out).mul_(scale)
        else:
            torch.mul(x, scale, out=out).add_(shift)
        return out, sum_per_item(log_scale), scale

    def invert(
        self, z: Tensor, parameters: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The x that is mapped to z, the sum of -log s for each item, and s."""
        out = torch.empty_like(z) if out is None else out
        shift, raw = shift_and_raw(parameters, self.layout)
        scale, log_scale = self.scale_map.scale_into(torch.empty_like(z), raw, self.offset_added)
        if self.order == "shift-scale":
            torch.div(z, scale, out=out).sub_(shift)
        else:
            torch.sub(z, shift, out=out).div_(scale)
        return out, sum_per_item(log_scale).neg_(), scale

    def pull(
        self,
        kept: Tensor,
        scale: Tensor,
        dtype: torch.dtype,
        grad_z: Tensor,
        grad_log_det: Tensor,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The gradients at x and at the parameters.

        Args:
            kept: z or, in scale-shift order, x.
            scale: s.
            dtype: That of the parameters.
            grad_z: The gradient at z.
            grad_log_det: The gradient at the sum of log s, ``(B,)``.
            out: Where the gradient at x goes, which may be ``grad_z``; a new tensor if not given.
        """
        grad_log_det = grad_log_det.view(-1, *(1,) * (grad_z.ndim - 1))
        # Made for the network, which has the channels of a pixel side by side.
        batch, channels, *size = grad_z.shape
        # Of many gradients at once that at log s alone may be one.
        like = grad_log_det if is_batched(grad_log_det) else grad_z
        grad = like.new_empty((batch, *size, 2 * channels), dtype=dtype).movedim(-1, 1)
        to_shift, to_raw = shift_and_raw(grad, self.layout)
        if self.order == "shift-scale":
            # dz / d log s = (x + t) s = z
            grad_log_scale = torch.addcmul(grad_log_det, grad_z, kept)
            grad_x = torch.mul(grad_z, scale, out=out)
            to_shift.copy_(grad_x)
        else:
            # dz / d log s = x s
            to_shift.copy_(grad_z)
            grad_x = torch.mul(grad_z, scale, out=out)
            grad_log_scale = torch.addcmul(grad_log_det, grad_x, kept)
        to_raw.copy_(self.scale_map.pull(grad_log_scale, scale))
        return grad_x, grad


def affine(x: Tensor, parameters: Tensor, elementwise: AffineMap) -> tuple[Tensor, Tensor]:
    """:meth:`AffineMap.map` with gradients: the mapped x, in the memory layout of ``x``, and sums of log s ``(B,)``."""
    if not torch.is_grad_enabled():
        z, log_det, _ = elementwise.map(x, parameters)
    else:
        z, log_det = _Affine.apply(x, parameters, elementwise)
    return z, log_det


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, elementwise: AffineMap) -> tuple[Tensor, Tensor]:
        z, log_det, scale = elementwise.map(x, parameters)
        ctx.save_for_backward(z if elementwise.keeps_output else x, scale)
        ctx.elementwise, ctx.dtype = elementwise, parameters.dtype
        return z, log_det

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        kept, scale = ctx.saved_tensors
        return *ctx.elementwise.pull(kept, scale, ctx.dtype, grad_z, grad_log_det), None


class AffinePull(NamedTuple):
    """What :func:`affine_reverse` finds: x, and the gradients at x and at the parameters."""

    x: Tensor
    grad_x: Tensor
    grad_parameters: Tensor


def affine_reverse(
    z: Tensor, parameters: Tensor, grad_z: Tensor, grad_log_det: Tensor, elementwise: AffineMap
) -> AffinePull:
    """The inverse and the gradients of :func:`affine` from its output alone; outside of autograd."""
    x, _, scale = elementwise.invert(z, parameters)
    kept = z if elementwise.keeps_output else x
    return AffinePull(x, *elementwise.pull(kept, scale, parameters.dtype, grad_z, grad_log_det))
