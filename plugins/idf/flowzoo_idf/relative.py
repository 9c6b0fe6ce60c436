"""Means relative to what is known: the nearest pixels that stay, and the channels of the same pixel that came before.

The functions here take integers as int64 or held in floats, and are exact in both.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["COEFFICIENT_LIMIT", "UNITS", "nearest_sum", "pairs", "shift"]

UNITS = 32
"""Relative means are in units of the window over 32."""

COEFFICIENT_LIMIT = 4.0
"""Coefficients between channels are clamped to +-4."""

# By the number of pixels of a block that stay: (which of them, its block's row and column from here) of the four
# nearest. The checkerboard order of pixels is (0, 0), (1, 1), (0, 1), (1, 0).
_NEAREST = {
    1: ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)),
    2: ((0, 0, 0), (0, 0, 1), (1, 0, 0), (1, -1, 0)),
    3: ((0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 0, -1)),
}


def nearest_sum(kept: Tensor, channels: int) -> Tensor:
    """The sum of the four nearest pixels that stay, of a pixel that leaves.

    Args:
        kept: What stays of each 2x2 block, ``(B, n C, H, W)`` with n of 1 to 3.
        channels: C, those of a pixel.

    Returns:
        ``(B, C, H, W)``. Beyond the image's edge is the nearest block again.
    """
    pixels = kept.split(channels, dim=1)
    shifted = [shift(shift(pixels[index], 2, row), 3, column) for index, row, column in _NEAREST[len(pixels)]]
    return torch.stack(shifted).sum(0)


def shift(x: Tensor, dim: int, by: int) -> Tensor:
    """What lies ``by`` (-1, 0 or 1) further along ``dim``, the last one again where nothing does."""
    if by == 0:
        return x
    size = x.shape[dim]
    if by > 0:
        return torch.cat((x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)), dim)
    return torch.cat((x.narrow(dim, 0, 1), x.narrow(dim, 0, size - 1)), dim)


def pairs(channels: int) -> list[tuple[int, int]]:
    """Each channel with each one before it: (1, 0), (2, 0), (2, 1), ..."""
    return [(later, earlier) for later in range(channels) for earlier in range(later)]
