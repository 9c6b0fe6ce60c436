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
from flowzoo.nets.derivatives import first_derivative

AffineOrder = Literal["shift-scale", "scale-shift"]
ParameterLayout = Literal["halves", "interleaved"]


def shift_and_raw(parameters: Tensor, layout: ParameterLayout) -> tuple[Tensor, Tensor]:
    """Views of a network's output ``(B, 2 C, ...)`` as shifts and raw log-scales, both ``(B, C, ...)``."""
    if layout == "interleaved":
        return parameters[:, 0::2], parameters[:, 1::2]
    shift, raw = parameters.chunk(2, dim=1)
    return shift, raw


def affine(
    x: Tensor, parameters: Tensor, scale_map: ScaleMap, order: AffineOrder, layout: ParameterLayout
) -> tuple[Tensor, Tensor]:
    """Maps x to (x + t) s or x s + t, and sums log s for each item, with (t, s) from a network's output.

    Args:
        x: ``(B, C, ...)``.
        parameters: ``(B, 2 C, ...)`` in the dtype of ``x`` or a narrower one.
        scale_map: Raw log-scales to scales; one that learns nothing (:attr:`ScaleMap.is_fixed`).
        order: ``"shift-scale"`` is (x + t) s, ``"scale-shift"`` is x s + t.
        layout: How shifts and raw log-scales share the channels of ``parameters``.

    Returns:
        The mapped x in the memory layout of ``x``, and ``(B,)``.
    """
    if not torch.is_grad_enabled():
        z, log_det, _ = _map(x, parameters, scale_map, order, layout)
    else:
        z, log_det = _Affine.apply(x, parameters, scale_map, order, layout)
    return z, log_det


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        parameters: Tensor,
        scale_map: ScaleMap,
        order: AffineOrder,
        layout: ParameterLayout,
    ) -> tuple[Tensor, Tensor]:
        z, log_det, scale = _map(x, parameters, scale_map, order, layout)
        ctx.save_for_backward(z if order == "shift-scale" else x, scale)
        ctx.scale_map, ctx.order, ctx.layout, ctx.dtype = scale_map, order, layout, parameters.dtype
        return z, log_det

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        kept, scale = ctx.saved_tensors
        how = (ctx.scale_map, ctx.order, ctx.layout)
        grad_x, grad_parameters = _pull(kept, scale, ctx.dtype, grad_z, grad_log_det, *how)
        return grad_x, grad_parameters, None, None, None


def _map(
    x: Tensor, parameters: Tensor, scale_map: ScaleMap, order: AffineOrder, layout: ParameterLayout
) -> tuple[Tensor, Tensor, Tensor]:
    """The mapped x, the sum of log s, and s; outside of autograd."""
    shift, raw = (torch.empty_like(x).copy_(part) for part in shift_and_raw(parameters, layout))
    scale, log_scale = scale_map.scale_(raw)
    z = shift.add_(x).mul_(scale) if order == "shift-scale" else shift.addcmul_(x, scale)
    return z, sum_per_item(log_scale), scale


class AffinePull(NamedTuple):
    """What :func:`affine_reverse` finds: x, and the gradients at x and at the parameters."""

    x: Tensor
    grad_x: Tensor
    grad_parameters: Tensor


def affine_reverse(
    z: Tensor,
    parameters: Tensor,
    grad_z: Tensor,
    grad_log_det: Tensor,
    scale_map: ScaleMap,
    order: AffineOrder,
    layout: ParameterLayout,
) -> AffinePull:
    """The inverse and the gradients of :func:`affine` from its output alone; outside of autograd."""
    shift, raw = (torch.empty_like(z).copy_(part) for part in shift_and_raw(parameters, layout))
    scale, _ = scale_map.scale_(raw)
    x = torch.div(z, scale).sub_(shift) if order == "shift-scale" else torch.sub(z, shift).div_(scale)
    kept = z if order == "shift-scale" else x
    return AffinePull(
        x, *_pull(kept, scale, parameters.dtype, grad_z, grad_log_det, scale_map, order, layout)
    )


def _pull(
    kept: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    grad_z: Tensor,
    grad_log_det: Tensor,
    scale_map: ScaleMap,
    order: AffineOrder,
    layout: ParameterLayout,
) -> tuple[Tensor, Tensor]:
    """The gradients at x and at the parameters, from z or (in scale-shift order) x, and the scales."""
    grad_log_det = grad_log_det.view(-1, *(1,) * (grad_z.ndim - 1))
    grad_x = grad_z * scale
    if order == "shift-scale":
        # dz / d log s = (x + t) s = z
        grad_shift, grad_log_scale = grad_x, grad_z * kept + grad_log_det
    else:
        # dz / d log s = x s
        grad_shift, grad_log_scale = grad_z, grad_x * kept + grad_log_det
    grad_raw = scale_map.pull(grad_log_scale, scale)
    # Made for the network, which has the channels of a pixel side by side.
    batch, channels, *size = grad_x.shape
    grad = grad_raw.new_empty((batch, *size, 2 * channels), dtype=dtype).movedim(-1, 1)
    for part, found in zip(shift_and_raw(grad, layout), (grad_shift, grad_raw), strict=True):
        part.copy_(found)
    return grad_x, grad
