"""How a batch of images lies in memory between bijectors: channel-major.

One channel after the other, each with all pixels of all images: ``(B, C, H, W)`` with the strides of a contiguous
``(C, B, H, W)``. Every group of channels is then one block, so that elementwise arithmetic on half of the channels
runs at full speed, and a 1x1 convolution is one matrix product. Only the networks, whose convolutions are fastest
with the channels of a pixel side by side, lay out what they are given for themselves.

A tensor of another layout is never wrong here, only slower; vectors ``(B, D)`` stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor


def channel_major(x: Tensor) -> Tensor:
    """The same ``(B, C, ...)``, channel-major."""
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def channel_rows(x: Tensor) -> Tensor:
    """``(B, C, ...)`` as a matrix ``(C, N)`` of N pixels: a view of vectors or a channel-major batch, else a copy."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def from_channel_rows(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`channel_rows`, with B and all behind C of ``like``: a view, but for vectors a copy."""
    x = rows.view(rows.shape[0], like.shape[0], *like.shape[2:]).transpose(0, 1)
    return x.contiguous() if x.ndim == 2 else x


def split_channels(x: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """``(B, C, ...)`` into its ``first`` channels and the others, as views."""
    # Backwards, a split is one concatenation; two slices are two zero-filled tensors and their sum.
    if x.ndim == 2:
        a, b = x.split((first, x.shape[1] - first), dim=1)
        return a, b
    a, b = x.transpose(0, 1).split((first, x.shape[1] - first))
    return a.transpose(0, 1), b.transpose(0, 1)


def join_channels(first: Tensor, second: Tensor) -> Tensor:
    """The inverse of :func:`split_channels`."""
    if first.ndim == 2:
        return torch.cat((first, second), dim=1)
    return torch.cat((first.transpose(0, 1), second.transpose(0, 1))).transpose(0, 1)
