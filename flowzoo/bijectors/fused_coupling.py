"""An affine coupling with a network of plain convolutions as one operation with a backward pass of its own.

In a deep flow of narrow layers, what every operation costs beside its arithmetic adds up to as much as the arithmetic.
A coupling by parts is a score of nodes in the graph: the split, the network, the map, the join, and their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowzoo.bijectors.affine import AffineMap
from flowzoo.bijectors.partitions import Partition
from flowzoo.nets.derivatives import first_derivative, is_batched
from flowzoo.nets.rectified import (
    Kernel,
    convolve,
    pull_back,
    put_together,
    taken_apart,
)

__all__ = ["fused_coupling", "fused_coupling_inverse"]


class _Plan(NamedTuple):
    """What of a coupling is not a tensor with a gradient."""

    partition: Partition
    elementwise: AffineMap
    dtype: torch.dtype


def fused_coupling(
    x: Tensor, kernels: Sequence[Kernel], dtype: torch.dtype, partition: Partition, elementwise: AffineMap
) -> tuple[Tensor, Tensor]:
    """Maps one half of the channels by what convolutions make of the other.

    Args:
        x: ``(B, C, H, W)``.
        kernels: The network.
        dtype: What its convolutions are computed in.
        partition: A partition with :attr:`~flowzoo.bijectors.Partition.views`.
        elementwise: The map of the transformed half.

    Returns:
        z in the memory layout of ``x``, and the log-determinant ``(B,)``.
    """
    if not torch.is_grad_enabled():
        z, log_det, *_ = _map(x, [kernel.merged(dtype) for kernel in kernels], partition, elementwise)
    else:
        z, log_det = _FusedCoupling.apply(x, _Plan(partition, elementwise, dtype), *taken_apart(kernels))
    return z, log_det


def fused_coupling_inverse(
    z: Tensor, kernels: Sequence[Kernel], dtype: torch.dtype, partition: Partition, elementwise: AffineMap
) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`fused_coupling` and its log-determinant ``(B,)``, without gradients."""
    given, b = partition.views(z)
    parameters = convolve(given, [kernel.merged(dtype) for kernel in kernels])[-1]
    x = torch.empty_like(z)
    x_given, x_b = partition.views(x)
    x_given.copy_(given)
    _, log_det, _ = elementwise.invert(b, parameters, out=x_b)
    return x, log_det


def _map(
    x: Tensor, kernels: Sequence[Kernel], partition: Partition, elementwise: AffineMap
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """z, its log-determinant, the scales, and what went into each convolution."""
    given, b = partition.views(x)
    *inputs, parameters = convolve(given, kernels)
    z = torch.empty_like(x)
    z_given, z_b = partition.views(z)
    z_given.copy_(given)
    _, log_det, scale = elementwise.map(b, parameters, out=z_b)
    return z, log_det, scale, inputs


class _FusedCoupling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan, constants: Any, *tensors: Any) -> tuple[Tensor, Tensor]:
        kernels, saved, ctx.kept = put_together(constants, tensors, plan.dtype)
        z, log_det, scale, inputs = _map(x, kernels, plan.partition, plan.elementwise)
        ctx.plan = plan
        ctx.save_for_backward(z if plan.elementwise.keeps_output else x, scale, *inputs, *saved)
        return z, log_det

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        plan, wanted = ctx.plan, ctx.needs_input_grad[0]
        partition = plan.partition
        kept, scale, *saved = ctx.saved_tensors
        grad_direct, grad_b_out = partition.views(grad_z)
        grad_x = to_given = to_b = None
        if wanted and not (is_batched(grad_z) or is_batched(grad_log_det)):
            grad_x = torch.empty_like(kept)
            to_given, to_b = partition.views(grad_x)
        grad_b, grad_parameters = plan.elementwise.pull(
            partition.views(kept)[1], scale, plan.dtype, grad_b_out, grad_log_det, out=to_b
        )
        grad_given, gradients = pull_back(grad_parameters, saved, ctx.kept, wanted=wanted)
        if grad_given is not None:
            grad_given = torch.add(grad_direct, grad_given, out=to_given)
            grad_x = partition.merge(grad_given, grad_b) if grad_x is None else grad_x
        return grad_x, None, None, *gradients
