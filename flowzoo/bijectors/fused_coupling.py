"""An affine coupling with a network of plain convolutions as one step.

A coupling by parts is a score of nodes in the graph: the split, the network, the map, the join, and their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowzoo.bijectors.affine import AffineMap, empty_gradient, shift_and_raw
from flowzoo.bijectors.layout import channel_rows, from_channel_rows
from flowzoo.bijectors.partitions import Partition
from flowzoo.bijectors.rows import Incoming, Mapped, RecordedStep, Step, at_pixels
from flowzoo.nets.kernels import Kernel, tensors_of
from flowzoo.nets.rectified import convolve, pull_back, put_together
from flowzoo.nets.settled import settle


class CouplingStep(RecordedStep):
    """Maps one half of the channels by what convolutions make of the other."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        dtype: torch.dtype,
        partition: Partition,
        elementwise: AffineMap,
        size: torch.Size,
    ) -> None:
        """Makes the step.

        Args:
            kernels: The network.
            dtype: What its convolutions are computed in.
            partition: A partition with :attr:`~flowzoo.bijectors.Partition.views`.
            elementwise: The map of the transformed half.
            size: Height and width of images.
        """
        self.kernels = kernels
        self.dtype = dtype
        self.partition = partition
        self.elementwise = elementwise
        self.size = size
        self.tensors = tensors_of(kernels)

    def map(self, x: Tensor, free: bool) -> Mapped:
        """See :class:`RecordedStep`; z is laid out in memory as ``x`` is."""
        kernels, weights, kept = put_together(self.kernels, self.dtype)
        given, b = self.partition.views(x, dim=0)
        *inputs, parameters = convolve(as_images(given, self.size), kernels)
        keeps_output = self.elementwise.keeps_output
        z, z_b = (x, b) if free and keeps_output else _beside(x, given, self.partition)
        _, log_scale, scale = self.elementwise.map(b, *self._parted(channel_rows(parameters)), out=z_b)
        return Mapped(z, log_scale, [z if keeps_output else x, scale, *inputs, *weights], kept)

    def pull(
        self, saved: Sequence[Tensor], rest: Any, incoming: Incoming
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """See :class:`RecordedStep`."""
        views, wanted = self.partition.views, incoming.wanted
        kept, scale, *saved = saved
        grad_direct, grad_b_out = views(incoming.z, dim=0)
        grad_x = to_given = to_b = None
        if incoming.free:
            grad_x, to_given, to_b = incoming.z, grad_direct, grad_b_out
        elif wanted and not incoming.batched:
            grad_x = torch.empty_like(kept)
            to_given, to_b = views(grad_x, dim=0)
        _, b = views(kept, dim=0)
        grad_b, grad_parameters = self._pull_map(b, scale, grad_b_out, incoming.log_derivatives, to_b)
        grad_given, gradients = pull_back(
            grad_parameters, saved, rest, wanted=wanted, batched=incoming.batched
        )
        if grad_given is None:
            return None, gradients
        grad_given = torch.add(grad_direct, channel_rows(grad_given), out=to_given)
        if grad_x is None:
            halves = as_images(grad_given, self.size), as_images(grad_b, self.size)
            grad_x = channel_rows(self.partition.merge(*halves))
        return grad_x, gradients

    def reverse(self, z: Tensor, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The input, the gradient at it, and those at :attr:`tensors`, from the result alone: all ``(B, C, H, W)``."""
        views = self.partition.views
        kernels, weights, rest = put_together(self.kernels, self.dtype)
        given, z_b = views(channel_rows(z), dim=0)
        *inputs, parameters = convolve(as_images(given, self.size), kernels)
        x, x_b = _beside(channel_rows(z), given, self.partition)
        _, _, scale = self.elementwise.invert(z_b, *self._parted(channel_rows(parameters)), out=x_b)
        grad_direct, grad_z_b = views(channel_rows(grad_z), dim=0)
        grad_x = torch.empty_like(x)
        to_given, to_b = views(grad_x, dim=0)
        kept = z_b if self.elementwise.keeps_output else x_b
        for_pixels = at_pixels(grad_log_det, self.size.numel())
        _, grad_parameters = self._pull_map(kept, scale, grad_z_b, for_pixels, to_b)
        del parameters, scale
        grad_given, gradients = pull_back(
            grad_parameters, [*inputs, *weights], rest, wanted=True, batched=False
        )
        assert grad_given is not None
        torch.add(grad_direct, channel_rows(grad_given), out=to_given)
        return from_channel_rows(x, like=z), from_channel_rows(grad_x, like=z), gradients

    def _pull_map(
        self, kept: Tensor, scale: Tensor, grad_z: Tensor, grad_log_scale: Tensor, out: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The gradients at the transformed half and at the network's output ``(B, O, H, W)``."""
        channels, pixels = grad_z.shape
        grad = empty_gradient((pixels, 2 * channels), self.dtype, grad_z, grad_log_scale)
        to_parameters = self._parted(grad.t())
        grad_x = self.elementwise.pull(kept, scale, grad_z, grad_log_scale, to_parameters, out)
        return grad_x, as_images(grad.t(), self.size)

    def _parted(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return shift_and_raw(parameters, self.elementwise.layout, dim=0)


class SettledCouplingStep(Step):
    """The same, or its inverse, without gradients and with all that can be done beforehand done."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        dtype: torch.dtype,
        partition: Partition,
        elementwise: AffineMap,
        size: torch.Size,
        inverse: bool,
    ) -> None:
        """Makes the step; see :class:`CouplingStep`."""
        merged = [kernel.merged(dtype) for kernel in kernels]
        if dtype in (torch.float32, torch.float64):
            # Of a narrower dtype the sum would lose digits.
            elementwise, merged[-1] = elementwise.in_bias(merged[-1])
        self.network = settle(merged, input_is_kept=True)
        self.partition = partition
        self.layout = elementwise.layout
        self.elementwise = elementwise.invert if inverse else elementwise.map
        self.size = size

    def apply(self, x: Tensor, free: bool) -> tuple[Tensor, Tensor]:
        """See :class:`Step`; for the inverse ``x`` is a latent."""
        given, b = self.partition.views(x, dim=0)
        parameters = channel_rows(self.network(as_images(given, self.size)))
        z, z_b = (x, b) if free else _beside(x, given, self.partition)
        _, log_scale, _ = self.elementwise(b, *shift_and_raw(parameters, self.layout, dim=0), z_b)
        return z, log_scale


def as_images(rows: Tensor, size: torch.Size) -> Tensor:
    """``(C, B H W)`` as ``(B, C, H, W)``: a view."""
    return rows.view(rows.shape[0], rows.shape[1] // max(size.numel(), 1), *size).transpose(0, 1)


def _beside(x: Tensor, given: Tensor, partition: Partition) -> tuple[Tensor, Tensor]:
    """A tensor like ``x`` with the given half in place, and its other half to be written to."""
    z = torch.empty_like(x)
    z_given, z_b = partition.views(z, dim=0)
    z_given.copy_(given)
    return z, z_b
