"""The elementwise part of an affine coupling as one operation with a backward pass of its own.

A composition of elementwise operations is a pass over the activations for each of them, forwards and backwards, and
keeps most of what it computes. This one keeps two tensors, from which every derivative follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from flowzoo.bijectors.base import sum_per_item
from flowzoo.bijectors.scale_maps import ScaleMap
from flowzoo.nets.derivatives import first_derivative, is_batched
from flowzoo.nets.kernels import Kernel

AffineOrder = Literal["shift-scale", "scale-shift"]
ParameterLayout = Literal["halves", "interleaved"]


def shift_and_raw(parameters: Tensor, layout: ParameterLayout, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Views of a network's output as shifts and raw log-scales: ``2 C`` channels, in this dimension, as twice ``C``."""
    if layout == "interleaved":
        every = (slice(None),) * dim
        return parameters[*every, 0::2], parameters[*every, 1::2]
    shift, raw = parameters.chunk(2, dim=dim)
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
        _, raw = shift_and_raw(bias, self.layout, dim=0)
        raw.add_(self.scale_map.offset)
        return self._replace(offset_added=True), kernel._replace(bias=bias)

    def map(
        self, x: Tensor, shift: Tensor, raw: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mapped x, log s, and s.

        Args:
            x: Of any shape.
            shift: t, of the shape of ``x`` and its dtype or a narrower one.
            raw: Raw log-scales, of the same.
            out: Where the mapped x goes, which may be ``x``; a new tensor if not given.
        """
        scale, log_scale = self.scale_map.scale_into(torch.empty_like(x), raw, self.offset_added)
        out = torch.empty_like(x) if out is None else out
        if self.order == "shift-scale":
            torch.add(x, shift, out=out).mul_(scale)
        else:
            torch.mul(x, scale, out=out).add_(shift)
        return out, log_scale, scale

    def invert(
        self, z: Tensor, shift: Tensor, raw: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The x that is mapped to z, log s, and s."""
        scale, log_scale = self.scale_map.scale_into(torch.empty_like(z), raw, self.offset_added)
        out = torch.empty_like(z) if out is None else out
        if self.order == "shift-scale":
            torch.div(z, scale, out=out).sub_(shift)
        else:
            torch.sub(z, shift, out=out).div_(scale)
        return out, log_scale, scale

    def pull(
        self,
        kept: Tensor,
        scale: Tensor,
        grad_z: Tensor,
        grad_log_scale: Tensor,
        to_parameters: tuple[Tensor, Tensor],
        out: Tensor | None = None,
    ) -> Tensor:
        """The gradient at x; those at shifts and raw log-scales are written where they are wanted.

        Args:
            kept: z or, in scale-shift order, x.
            scale: s.
            grad_z: The gradient at z.
            grad_log_scale: What comes from elsewhere to the gradient at log s, to be broadcast.
            to_parameters: Where the gradients at shifts and raw log-scales go.
            out: Where the gradient at x goes, which may be ``grad_z``; a new tensor if not given.
        """
        to_shift, to_raw = to_parameters
        if self.order == "shift-scale":
            # dz / d log s = (x + t) s = z
            grad_log_scale = torch.addcmul(grad_log_scale, grad_z, kept)
            grad_x = torch.mul(grad_z, scale, out=out)
            to_shift.copy_(grad_x)
        else:
            # dz / d log s = x s
            to_shift.copy_(grad_z)
            grad_x = torch.mul(grad_z, scale, out=out)
            grad_log_scale = torch.addcmul(grad_log_scale, grad_x, kept)
        to_raw.copy_(self.scale_map.pull(grad_log_scale, scale))
        return grad_x


def affine(x: Tensor, parameters: Tensor, elementwise: AffineMap) -> tuple[Tensor, Tensor]:
    """:meth:`AffineMap.map` with gradients, by a network's output.

    Returns:
        The mapped x, in the memory layout of ``x``, and sums of log s ``(B,)``.
    """
    if not torch.is_grad_enabled():
        z, log_scale, _ = elementwise.map(x, *shift_and_raw(parameters, elementwise.layout))
        return z, sum_per_item(log_scale)
    z, log_det = _Affine.apply(x, parameters, elementwise)
    return z, log_det


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, elementwise: AffineMap) -> tuple[Tensor, Tensor]:
        z, log_scale, scale = elementwise.map(x, *shift_and_raw(parameters, elementwise.layout))
        ctx.save_for_backward(z if elementwise.keeps_output else x, scale)
        ctx.elementwise, ctx.dtype = elementwise, parameters.dtype
        return z, sum_per_item(log_scale)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        kept, scale = ctx.saved_tensors
        return *_pull(ctx.elementwise, kept, scale, ctx.dtype, grad_z, grad_log_det), None


class AffinePull(NamedTuple):
    """What :func:`affine_reverse` finds: x, and the gradients at x and at the parameters."""

    x: Tensor
    grad_x: Tensor
    grad_parameters: Tensor


def affine_reverse(
    z: Tensor, parameters: Tensor, grad_z: Tensor, grad_log_det: Tensor, elementwise: AffineMap
) -> AffinePull:
    """The inverse and the gradients of :func:`affine` from its output alone; outside of autograd."""
    x, _, scale = elementwise.invert(z, *shift_and_raw(parameters, elementwise.layout))
    kept = z if elementwise.keeps_output else x
    return AffinePull(x, *_pull(elementwise, kept, scale, parameters.dtype, grad_z, grad_log_det))


def empty_gradient(
    shape: Sequence[int], dtype: torch.dtype, grad_z: Tensor, grad_log_scale: Tensor
) -> Tensor:
    """Where gradients at parameters go: made for the network, channels come last.

    If one of the gradients that come in is many at once, as that at log s alone may be, so is this.
    """
    like = grad_log_scale if is_batched(grad_log_scale) else grad_z
    return like.new_empty(shape, dtype=dtype)


def _pull(
    elementwise: AffineMap,
    kept: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    grad_z: Tensor,
    grad_log_det: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradients at x and at the parameters, which are in this dtype."""
    grad_log_det = grad_log_det.view(-1, *(1,) * (grad_z.ndim - 1))
    batch, channels, *size = grad_z.shape
    grad = empty_gradient((batch, *size, 2 * channels), dtype, grad_z, grad_log_det).movedim(-1, 1)
    to_parameters = shift_and_raw(grad, elementwise.layout)
    return elementwise.pull(kept, scale, grad_z, grad_log_det, to_parameters), grad
