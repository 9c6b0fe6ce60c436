"""The nearest images of a set: whether samples are copies of training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowzoo.analysis.batches import Advance, silent
from flowzoo.arguments import require_count
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.data.images import ImageSet

__all__ = ["COPY_RATIO", "CROWD", "Neighbours", "nearest"]

CROWD = 50
"""Neighbours whose mean distance says how densely a set is populated around an image."""

COPY_RATIO = 0.5
"""An image is called a copy where its nearest neighbour is less than this share of that mean distance away."""

_BLOCK = 5_000


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The K nearest images of a set to each of N images, the nearest first.

    Attributes:
        indices: int64 ``(N, K)``, positions in the set.
        distances: float64 ``(N, K)``, root mean square difference of pixels, in grey levels (0 to 255).
        ratio: float64 ``(N,)``: the nearest distance over the mean of the 50 nearest (fewer of a smaller set).
    """

    indices: Tensor
    distances: Tensor
    ratio: Tensor

    @property
    def copies(self) -> Tensor:
        """Bool ``(N,)``: whether the ratio is below :data:`COPY_RATIO`, a sign that the image is memorised.

        The rule of Carlini et al. (arXiv 2301.13188, section 4.2): near in comparison with the other neighbours, as
        plain images are near to many.
        """
        return self.ratio < COPY_RATIO


def nearest(x: Tensor, among: ImageSet, k: int = 5, *, advance: Advance = silent) -> Neighbours:
    """Finds the nearest images by Euclidean distance of pixels.

    Args:
        x: Images ``uint8 (N, C, H, W)``.
        among: The set to look in, such as the model's training images; read a block at a time.
        k: Neighbours of each.
        advance: Called with the number of images of the set that have been compared.

    Raises:
        InputError: The shapes differ, or the set has fewer than k images.
    """
    require_count("k", k)
    if tuple(x.shape[1:]) != among.image_shape or x.dtype != torch.uint8:
        raise InputError(
            f"images are {x.dtype} {tuple(x.shape[1:])}; expected uint8 {among.image_shape}, as those of the set."
        )
    if len(among) < k:
        raise InputError(f"the set has {len(among)} images; expected at least k = {k}.")
    wanted = min(len(among), max(k, CROWD))
    queries = x.cpu().flatten(1).float()
    squares = queries.square().sum(1, keepdim=True)
    best = torch.full((len(x), 0), 0.0)
    where = torch.zeros(len(x), 0, dtype=torch.int64)
    for first in range(0, len(among), _BLOCK):
        block = among[first : first + _BLOCK].flatten(1).float()
        # Whole numbers below 2^24 are exact in float32; larger sums are off by their rounding, which orders nothing.
        distance = squares + block.square().sum(1) - 2 * queries @ block.T
        joined = torch.cat((best, distance), dim=1)
        places = torch.cat((where, torch.arange(first, first + len(block)).expand(len(x), -1)), dim=1)
        best, order = joined.topk(min(wanted, joined.shape[1]), dim=1, largest=False)
        where = places.gather(1, order)
        advance(len(block))
    return _exactly(x, among, where, k)


def _exactly(x: Tensor, among: ImageSet, where: Tensor, k: int) -> Neighbours:
    """The distances of the candidates again, in float64, and in their exact order."""
    indices, distances, ratio = [], [], []
    for image, places in zip(x.cpu(), where, strict=True):
        gap = (among[places].double() - image.double()).flatten(1).square().mean(dim=1).sqrt()
        gap, order = gap.sort(stable=True)
        indices.append(places[order[:k]])
        distances.append(gap[:k])
        ratio.append(gap[0] / gap.mean() if gap.mean() > 0 else torch.tensor(0.0, dtype=torch.float64))
    return Neighbours(torch.stack(indices), torch.stack(distances), torch.stack(ratio))
