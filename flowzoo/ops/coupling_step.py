"""An affine coupling of channels with a network of plain convolutions as one step of a row.

An unfused coupling records about twenty autograd nodes: the split, the network, the map, the join.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.ops.affine import AffineMap, Plain, empty_gradient, shift_and_raw
from flowzoo.ops.conv_stack import backward, convolutions_plain, convolve, merge
from flowzoo.ops.frozen_stack import specialise
from flowzoo.ops.kernels import Kernel, kernels_of, structure_of, tensors_of
from flowzoo.ops.layout import channel_rows, join_channels, split_channels
from flowzoo.ops.rows import Incoming, Mapped, RecordedStep, Step


class Halves(NamedTuple):
    """Two runs of channels: whether the second conditions the coupling (``swap``), and the size of the first."""

    swap: bool
    first: int

    def views(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Views of ``(C, N)``: (conditioner, transformed)."""
        first, second = rows[: self.first], rows[self.first :]
        return (second, first) if self.swap else (first, second)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` as (conditioner, transformed), by differentiable operations."""
        first, second = split_channels(x, self.first)
        return (second, first) if self.swap else (first, second)

    def merge(self, conditioner: Tensor, transformed: Tensor) -> Tensor:
        """The inverse of :meth:`split`."""
        pair = (transformed, conditioner) if self.swap else (conditioner, transformed)
        return join_channels(*pair)


Bounds = tuple[float, float]
"""The least and the greatest value that a network sees; others are clamped."""


def clamped(x: Tensor, bounds: Bounds | None) -> Tensor:
    """``x`` with its values clamped to the bounds, if there are any, as ``nn.Hardtanh`` does."""
    return x if bounds is None else F.hardtanh(x, *bounds)


def _clamped_backward(grad: Tensor, x: Tensor, bounds: Bounds | None) -> Tensor:
    return grad if bounds is None else torch.ops.aten.hardtanh_backward(grad, x, *bounds)


class CouplingStep(RecordedStep):
    """Maps one half of the channels by the output of convolutions of the other."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        dtype: torch.dtype,
        halves: Halves,
        elementwise: AffineMap,
        size: torch.Size,
        plain_map: Plain,
        bounds: Bounds | None = None,
    ) -> None:
        """Makes the step.

        Args:
            kernels: The network.
            dtype: The dtype in which its convolutions are computed.
            halves: The coupling's partition.
            elementwise: The map of the transformed half.
            size: Height and width of images.
            plain_map: The same map by torch's own operations.
            bounds: Of what the network sees.
        """
        self.kernels = kernels
        self.dtype = dtype
        self.halves = halves
        self.elementwise = elementwise
        self.size = size
        self.plain_map = plain_map
        self.bounds = bounds
        self.tensors = tensors_of(kernels)

    def forward(self, x: Tensor, donated: bool) -> Mapped:
        """See :class:`flowzoo.ops.rows.RecordedStep`; z is laid out in memory as ``x`` is."""
        kernels, weights, kept = merge(self.kernels, self.dtype)
        given, b = self.halves.views(x)
        *inputs, parameters = convolve(self._seen(given), kernels)
        keeps_output = self.elementwise.keeps_output
        z, z_b = (x, b) if donated and keeps_output else _beside(x, given, self.halves)
        _, log_scale, scale = self.elementwise.forward(b, *self._parted(channel_rows(parameters)), out=z_b)
        return Mapped(z, log_scale, [z if keeps_output else x, scale, *inputs, *weights], kept)

    def apply(self, x: Tensor, donated: bool) -> tuple[Tensor, Tensor | None]:
        """See :class:`flowzoo.ops.rows.Step`."""
        kernels, _, _ = merge(self.kernels, self.dtype)
        given, b = self.halves.views(x)
        parameters = convolve(self._seen(given), kernels)[-1]
        z, z_b = (x, b) if donated else _beside(x, given, self.halves)
        _, log_scale, _ = self.elementwise.forward(b, *self._parted(channel_rows(parameters)), out=z_b)
        return z, log_scale

    def backward(
        self, saved: Sequence[Tensor], rest: Any, incoming: Incoming
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """See :class:`flowzoo.ops.rows.RecordedStep`."""
        kept, scale, *saved = saved
        grad_direct, grad_b_out = self.halves.views(incoming.z)
        grad_x = to_given = to_b = None
        if incoming.donated:
            grad_x, to_given, to_b = incoming.z, grad_direct, grad_b_out
        elif incoming.wanted:
            grad_x = torch.empty_like(kept)
            to_given, to_b = self.halves.views(grad_x)
        seen, b = self.halves.views(kept)
        grad_parameters = self._map_backward(b, scale, grad_b_out, incoming.log_derivatives, to_b)
        grad_given, gradients = backward(grad_parameters, saved, rest, wanted=incoming.wanted)
        if grad_given is None:
            return None, gradients
        self._add(channel_rows(grad_given), seen, grad_direct, to_given)
        return grad_x, gradients

    def reverse(self, z: Tensor, incoming: Incoming) -> tuple[Tensor, Tensor, Sequence[Tensor | None]]:
        """See :class:`flowzoo.ops.rows.RecordedStep`: one evaluation of the network serves inversion and gradient."""
        kernels, weights, rest = merge(self.kernels, self.dtype)
        given, z_b = self.halves.views(z)
        *inputs, parameters = convolve(self._seen(given), kernels)
        x, x_b = _beside(z, given, self.halves)
        _, _, scale = self.elementwise.inverse(z_b, *self._parted(channel_rows(parameters)), out=x_b)
        grad_direct, grad_z_b = self.halves.views(incoming.z)
        grad_x = torch.empty_like(x)
        to_given, to_b = self.halves.views(grad_x)
        kept = z_b if self.elementwise.keeps_output else x_b
        grad_parameters = self._map_backward(kept, scale, grad_z_b, incoming.log_derivatives, to_b)
        del parameters, scale
        grad_given, gradients = backward(grad_parameters, [*inputs, *weights], rest, wanted=True)
        assert grad_given is not None
        self._add(channel_rows(grad_given), given, grad_direct, to_given)
        return x, grad_x, gradients

    def plain(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`flowzoo.ops.rows.RecordedStep`."""
        given, b = self.halves.split(x)
        kernels = kernels_of(structure_of(self.kernels), tensors)
        b, log_det = self.plain_map(
            b, convolutions_plain(clamped(given, self.bounds), kernels, self.dtype).to(x.dtype)
        )
        return self.halves.merge(given, b), log_det

    def _seen(self, given: Tensor) -> Tensor:
        """The images that the network sees of the rows ``(C, N)`` of the conditioner."""
        return as_images(clamped(given, self.bounds), self.size)

    def _add(self, grad: Tensor, given: Tensor, grad_direct: Tensor, out: Tensor | None) -> None:
        """Writes the gradient at the conditioner: that at what the network sees of it, and the direct one."""
        torch.add(grad_direct, _clamped_backward(grad, given, self.bounds), out=out)

    def _map_backward(
        self, kept: Tensor, scale: Tensor, grad_z: Tensor, grad_log_scale: Tensor, out: Tensor | None
    ) -> Tensor:
        """Writes the gradient at the transformed half and returns that at the network's output ``(B, O, H, W)``."""
        channels, pixels = grad_z.shape
        grad = empty_gradient((pixels, 2 * channels), self.dtype, grad_z)
        self.elementwise.backward(kept, scale, grad_z, grad_log_scale, self._parted(grad.t()), out)
        return as_images(grad.t(), self.size)

    def _parted(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return shift_and_raw(parameters, self.elementwise.layout, dim=0)


class FrozenCouplingStep(Step):
    """The same, or its inverse, without gradients and specialised for many batches."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        dtype: torch.dtype,
        halves: Halves,
        elementwise: AffineMap,
        size: torch.Size,
        inverse: bool,
        bounds: Bounds | None = None,
    ) -> None:
        """Makes the step from merged kernels; see :class:`CouplingStep`."""
        kernels = list(kernels)
        if dtype in (torch.float32, torch.float64):
            # In a narrower dtype the sum would lose digits.
            elementwise, kernels[-1] = elementwise.in_bias(kernels[-1])
        self.network = specialise(kernels, input_is_kept=True)
        self.halves = halves
        self.layout = elementwise.layout
        self.elementwise = elementwise.inverse if inverse else elementwise.forward
        self.size = size
        self.bounds = bounds

    def apply(self, x: Tensor, donated: bool) -> tuple[Tensor, Tensor]:
        """See :class:`flowzoo.ops.rows.Step`; for the inverse ``x`` is a latent."""
        given, b = self.halves.views(x)
        parameters = channel_rows(self.network(as_images(clamped(given, self.bounds), self.size)))
        z, z_b = (x, b) if donated else _beside(x, given, self.halves)
        _, log_scale, _ = self.elementwise(b, *shift_and_raw(parameters, self.layout, dim=0), z_b)
        return z, log_scale


def as_images(rows: Tensor, size: torch.Size) -> Tensor:
    """``(C, B H W)`` as ``(B, C, H, W)``: a view."""
    return rows.view(rows.shape[0], rows.shape[1] // max(size.numel(), 1), *size).transpose(0, 1)


def _beside(x: Tensor, given: Tensor, halves: Halves) -> tuple[Tensor, Tensor]:
    """A tensor like ``x`` with the given half in place, and its other half to be written to."""
    z = torch.empty_like(x)
    z_given, z_b = halves.views(z)
    z_given.copy_(given)
    return z, z_b
