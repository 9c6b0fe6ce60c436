"""Bijectors made of splines: couplings, the histogram of all grey levels, and the way from the line to the cube."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowzoo.bijectors import Bijector, Coupling, Partition, sum_per_item
from flowzoo.nets.initialization import DataDependentInit
from flowzoo_splines.functions import LinearSpline, Spline

__all__ = ["CubeSigmoid", "GreyHistogram", "SplineCoupling"]


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


class GreyHistogram(Bijector, DataDependentInit):
    """z = F(x) elementwise, F the distribution function of the histogram of all values in [0, 1].

    The histogram is counted on the first batch and learned from there.
    """

    def __init__(self, bins: int) -> None:
        """Makes the identity.

        Args:
            bins: Equal bins, such as the grey levels of images.
        """
        super().__init__()
        # Of 256 levels the darkest may be all but a few of the rest.
        self.spline = LinearSpline(bins=bins, minimum=1e-3 / bins)
        self.logits = nn.Parameter(torch.zeros(bins))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.wants_init():
            self._initialize_from(x)
        z, log_slope = self.spline(x, self.logits)
        return z, sum_per_item(log_slope)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_slope = self.spline.inverse(z, self.logits)
        return x, sum_per_item(log_slope)

    @torch.no_grad()
    def _initialize_from(self, x: Tensor) -> None:
        bins = self.spline.bins
        counts = torch.bincount((x * bins).floor().long().clamp(0, bins - 1).flatten(), minlength=bins)
        # One more of each, for levels that the batch happens to lack.
        shares = (counts + 1) / (counts + 1).sum()
        self.logits.copy_(shares.log())
        self.mark_initialized()


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
