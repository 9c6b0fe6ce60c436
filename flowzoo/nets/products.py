"""Convolutions and their gradients as products of matrices, where these are faster."""

from __future__ import annotations

import torch
from torch import Tensor

# Pixels of a batch up to which a 1x1 convolution is faster as a product of matrices; backwards it always is.
FEW_PIXELS = 2**11


def is_product(weight: Tensor) -> bool:
    """Whether a convolution with such a weight may better be computed as a product of matrices."""
    return weight.shape[2:] == (1, 1) and weight.device.type == "cpu" and not weight.is_mkldnn


def multiplied(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution: ``(B, I, H, W)`` to ``(B, O, H, W)``, channels last in memory."""
    return from_pixels(torch.addmm(bias, pixels(x), weight.flatten(1).t()), like=x)


def pixels(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` as ``(B H W, C)``: a view where the channels of a pixel lie side by side."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def from_pixels(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`pixels`: ``(B H W, C)`` to ``(B, C, H, W)`` with B, H and W of ``like``."""
    return rows.view(like.shape[0], *like.shape[2:], rows.shape[1]).permute(0, 3, 1, 2)
