"""The distribution function of a histogram as a bijector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector, Inverse, sum_per_item
from flowzoo.bijectors.elementwise import Logit
from flowzoo.bijectors.reshape import Flatten
from flowzoo.nets.initialization import DataDependentInit


class HistogramCDF(Bijector):
    """z = F(x), the piecewise linear distribution function of a histogram on [0, 1] with K equal bins.

    F(x) = sum of p_j over the bins below, and K p_k times what is left; log|det| = sum log(K p_k). Outside of [0, 1]
    the first and the last piece go on. Quantized images whose grey levels are the bins have exactly the histogram's
    probabilities.
    """

    def __init__(self, dims: int, bins: int, *, shared: bool) -> None:
        """Makes uniform histograms, which are the identity.

        Args:
            dims: D of ``(B, D)``.
            bins: K.
            shared: Whether all values have the same histogram.
        """
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1 if shared else dims, bins))

    def _pieces(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the bins, and the distribution function at their left edges, ``(1 or D, K)``."""
        log_p = F.log_softmax(self.logits, dim=1)
        p = log_p.exp()
        return log_p, p.cumsum(dim=1) - p

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        bins = self.logits.shape[1]
        log_p, left = self._pieces()
        index = (x.detach() * bins).floor().long().clamp(0, bins - 1)
        log_density = _of_bins(log_p, index) + math.log(bins)
        z = _of_bins(left, index) + (x - index.to(x.dtype) / bins) * log_density.exp()
        # Rounding must not carry a value of [0, 1] over its end, where a uniform base has no density.
        z = torch.where((x >= 0) & (x <= 1), z.clamp(0, 1), z)
        return z, sum_per_item(log_density)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        bins = self.logits.shape[1]
        log_p, left = self._pieces()
        edges = left.expand(z.shape[1], -1).contiguous()
        found = torch.searchsorted(edges.detach(), z.detach().T.contiguous(), right=True).T - 1
        index = found.clamp(0, bins - 1)
        log_density = _of_bins(log_p, index) + math.log(bins)
        x = (z - _of_bins(left, index)) * torch.exp(-log_density) + index.to(z.dtype) / bins
        return x, -sum_per_item(log_density)


class CountedHistogramCDF(HistogramCDF, DataDependentInit):
    """A ``HistogramCDF`` that begins with the counts of the images it is initialised on, and is learned from there."""

    def __init__(self, dims: int, bins: int, *, shared: bool = False, pseudocount: float = 0.2) -> None:
        """Makes uniform histograms, until ``Flow.initialize`` counts.

        Args:
            dims: D of ``(B, D)``.
            bins: K.
            shared: Whether all values have the same histogram.
            pseudocount: Added to each count, for values that the batch happens to lack.
        """
        super().__init__(dims, bins, shared=shared)
        self.pseudocount = pseudocount

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.wants_init():
            self._count(x.detach())
        return super()._forward(x, context)

    @torch.no_grad()
    def _count(self, x: Tensor) -> None:
        rows, bins = self.logits.shape
        index = (x * bins).floor().long().clamp(0, bins - 1)
        values = index.reshape(-1, rows)
        flat = values + bins * torch.arange(rows, device=x.device)
        counts = torch.bincount(flat.flatten(), minlength=rows * bins).reshape(rows, bins) + self.pseudocount
        self.logits.copy_((counts / counts.sum(1, keepdim=True)).log())
        self.mark_initialized()


LOGIT_ALPHA = 1e-6
"""Keeps the logit of 0 and 1 finite; a logistic base has 2e-6 of its probability beyond, 3e-6 bits/dim."""


def logistic_marginals(shape: tuple[int, ...], bins: int) -> tuple[Bijector, ...]:
    """The distribution function of each value's histogram, then the quantile function of the logistic distribution.

    Where no two values depend on each other, a ``StandardLogistic`` base is then exact: a flow that goes on from here
    begins at the density of independent pixels, 1.69 bits/dim on MNIST, instead of having to learn it.

    Args:
        shape: Of an item, ``(D,)`` or ``(C, H, W)``, with values in [0, 1]; that of what comes out, too.
        bins: Grey levels.

    Returns:
        The bijectors, in order.
    """
    maps = CountedHistogramCDF(math.prod(shape), bins), Logit(LOGIT_ALPHA)
    if len(shape) == 1:
        return maps
    flatten = Flatten(shape)
    return (flatten, *maps, Inverse(flatten))


def _of_bins(values: Tensor, index: Tensor) -> Tensor:
    """The values ``(1 or D, K)`` of the bins ``(B, D)``."""
    return values.expand(index.shape[1], -1).gather(1, index.T).T
