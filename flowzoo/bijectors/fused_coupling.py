"""An affine coupling with a network of plain convolutions as one step.

A coupling by parts is a score of nodes in the graph: the split, the network, the map, the join, and their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowzoo.bijectors.affine import AffineMap
from flowzoo.bijectors.partitions import Partition
from flowzoo.bijectors.rows import Incoming, Mapped, RecordedStep, Step
from flowzoo.nets.kernels import Kernel, tensors_of
from flowzoo.nets.rectified import convolve, pull_back, put_together
from flowzoo.nets.settled import settle


class CouplingStep(RecordedStep):
    """Maps one half of the channels of ``(B, C, H, W)`` by what convolutions make of the other."""

    def __init__(
        self, kernels: Sequence[Kernel], dtype: torch.dtype, partition: Partition, elementwise: AffineMap
    ) -> None:
        """Makes the step.

        Args:
            kernels: The network.
            dtype: What its convolutions are computed in.
            partition: A partition with :attr:`~flowzoo.bijectors.Partition.views`.
            elementwise: The map of the transformed half.
        """
        self.kernels = kernels
        self.dtype = dtype
        self.partition = partition
        self.elementwise = elementwise
        self.tensors = tensors_of(kernels)

    def map(self, x: Tensor, free: bool) -> Mapped:
        """See :class:`RecordedStep`; z is laid out in memory as ``x`` is."""
        kernels, weights, kept = put_together(self.kernels, self.dtype)
        given, b = self.partition.views(x)
        *inputs, parameters = convolve(given, kernels)
        keeps_output = self.elementwise.keeps_output
        z, z_b = (x, b) if free and keeps_output else _beside(x, given, self.partition)
        _, log_det, scale = self.elementwise.map(b, parameters, out=z_b)
        return Mapped(z, log_det, [z if keeps_output else x, scale, *inputs, *weights], kept)

    def pull(
        self, saved: Sequence[Tensor], rest: Any, incoming: Incoming
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """See :class:`RecordedStep`."""
        views, wanted = self.partition.views, incoming.wanted
        kept, scale, *saved = saved
        grad_direct, grad_b_out = views(incoming.z)
        grad_x = to_given = to_b = None
        if incoming.free:
            grad_x, to_given, to_b = incoming.z, grad_direct, grad_b_out
        elif wanted and not incoming.batched:
            grad_x = torch.empty_like(kept)
            to_given, to_b = views(grad_x)
        grad_b, grad_parameters = self.elementwise.pull(
            views(kept)[1], scale, self.dtype, grad_b_out, incoming.log_det, out=to_b
        )
        grad_given, gradients = pull_back(grad_parameters, saved, rest, wanted=wanted)
        if grad_given is None:
            return None, gradients
        grad_given = torch.add(grad_direct, grad_given, out=to_given)
        return self.partition.merge(grad_given, grad_b) if grad_x is None else grad_x, gradients

    def reverse(self, z: Tensor, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The input, the gradient at it, and those at :attr:`tensors`, from the result alone."""
        views = self.partition.views
        kernels, weights, rest = put_together(self.kernels, self.dtype)
        given, z_b = views(z)
        *inputs, parameters = convolve(given, kernels)
        x, x_b = _beside(z, given, self.partition)
        _, _, scale = self.elementwise.invert(z_b, parameters, out=x_b)
        grad_direct, grad_z_b = views(grad_z)
        grad_x = torch.empty_like(z)
        to_given, to_b = views(grad_x)
        kept = z_b if self.elementwise.keeps_output else x_b
        _, grad_parameters = self.elementwise.pull(kept, scale, self.dtype, grad_z_b, grad_log_det, out=to_b)
        del parameters, scale
        grad_given, gradients = pull_back(grad_parameters, [*inputs, *weights], rest, wanted=True)
        assert grad_given is not None
        torch.add(grad_direct, grad_given, out=to_given)
        return x, grad_x, gradients


class SettledCouplingStep(Step):
    """The same, or its inverse, without gradients and with all that can be done beforehand done."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        dtype: torch.dtype,
        partition: Partition,
        elementwise: AffineMap,
        inverse: bool,
    ) -> None:
        """Makes the step; see :class:`CouplingStep`."""
        merged = [kernel.merged(dtype) for kernel in kernels]
        if dtype in (torch.float32, torch.float64):
            # Of a narrower dtype the sum would lose digits.
            elementwise, merged[-1] = elementwise.in_bias(merged[-1])
        self.network = settle(merged, input_is_kept=True)
        self.partition = partition
        self.elementwise = elementwise.invert if inverse else elementwise.map

    def apply(self, x: Tensor, free: bool) -> tuple[Tensor, Tensor]:
        """See :class:`Step`; for the inverse ``x`` is a latent."""
        given, b = self.partition.views(x)
        parameters = self.network(given)
        z, z_b = (x, b) if free else _beside(x, given, self.partition)
        _, log_det, _ = self.elementwise(b, parameters, z_b)
        return z, log_det


def _beside(x: Tensor, given: Tensor, partition: Partition) -> tuple[Tensor, Tensor]:
    """A tensor like ``x`` with the given half in place, and its other half to be written to."""
    z = torch.empty_like(x)
    z_given, z_b = partition.views(z)
    z_given.copy_(given)
    return z, z_b
