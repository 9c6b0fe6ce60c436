"""Couplings made of splines, and the way from the line to the cube."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowzoo.bijectors import Bijector, Coupling, Partition, sum_per_item
from flowzoo_splines.functions import Spline

__all__ = ["CubeSigmoid", "SplineCoupling"]


class SplineCoupling(Coupling):
    """z_b = g(x_b), with g a spline for each value whose parameters are the network's of x_a; log|det| = sum log g'.

    NIS, section 4; NSF, section 3.1. The network gives P numbers for each value, those of a channel side by side.
    """

    def __init__(self, partition: Partition, net: nn.Module, spline: Spline) -> None:
        """Makes the coupling.

        Args:
            partition: How an item is parted in (conditioner, transformed).
            net: Conditioner to ``P C`` channels, where the transformed half has ``C``.
            spline: The family of splines; P is its number of parameters.
        """
        super().__init__(partition, net)
        self.spline = spline

    def _raw(self, parameters: Tensor) -> Tensor:
        """``(B, P C, ...)`` to ``(B, C, ..., P)``."""
        grouped: Tensor = parameters.unflatten(1, (-1, self.spline.parameters))
        return grouped.movedim(2, -1)

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = self.spline(x, self._raw(parameters))
        return z, self.sum_transformed(log_slope)

    def _invert(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        x, log_slope = self.spline.inverse(z, self._raw(parameters))
        return x, self.sum_transformed(log_slope)


class CubeSigmoid(Bijector):
    """z = sigmoid(x), log|det| = sum log z (1 - z): from the line to the open cube.

    A z of 0 or 1 comes back as the farthest value that its precision has, so that every sample is finite.
    """

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(x), sum_per_item(_log_slope(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        eps = torch.finfo(z.dtype).eps
        x = torch.logit(z.clamp(eps / 2, 1 - eps / 2))
        return x, -sum_per_item(_log_slope(x))


def _log_slope(x: Tensor) -> Tensor:
    return torch.nn.functional.logsigmoid(x) + torch.nn.functional.logsigmoid(-x)
