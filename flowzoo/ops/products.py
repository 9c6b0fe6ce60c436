"""Convolutions and their gradients as products of matrices, where these are faster."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Pixels of a batch up to which a 1x1 convolution is faster as a product of matrices; backwards it always is.
FEW_PIXELS = 2**10

# Outputs up to which a 3x3 convolution of many more channels is faster as a product: oneDNN computes 16 at a time.
FEW_OUTPUTS = 8

# Inputs, and pixels of a batch, from which on it is.
MANY_INPUTS, MANY_PIXELS = 32, 2**9

# Numbers from which on a product with ones is the faster sum over rows: what does not fit into a cache is read once.
MANY_NUMBERS = 2**19


def is_product(weight: Tensor) -> bool:
    """Whether a convolution with such a weight may better be computed as a product of matrices."""
    return weight.shape[2:] == (1, 1) and weight.device.type == "cpu" and not weight.is_mkldnn


def multiplied(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution by a matrix ``(I, O)``: ``(B, I, H, W)`` to ``(B, O, H, W)``, channels last in memory."""
    return from_pixels(torch.addmm(bias, pixels(x), matrix), like=x)


def is_thin(weight: Tensor, batch: int, size: torch.Size) -> bool:
    """Whether a convolution with such a weight is better computed by :func:`convolved_by_taps`."""
    outputs, inputs, *kernel = weight.shape
    return (
        outputs <= FEW_OUTPUTS
        and kernel == [3, 3]
        and max(8 * outputs, MANY_INPUTS) <= inputs
        and batch * math.prod(size) >= MANY_PIXELS
        and weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.float64)
        and not weight.is_mkldnn
    )


def convolved_by_taps(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3x3 convolution that keeps height and width, ``(B, I, H, W)`` to ``(B, O, H, W)``, channel-major in memory.

    One product gives what every tap brings, ``(3, 3, O, B, H, W)``; added up are first columns, then rows.
    """
    batch, _, height, width = x.shape
    outputs, inputs = weight.shape[:2]
    taps = torch.mm(weight.permute(2, 3, 0, 1).reshape(-1, inputs), pixels(x).t())
    left, middle, right = taps.view(3, 3, outputs, batch, height, width).unbind(1)
    middle[..., 1:] += left[..., :-1]
    middle[..., :-1] += right[..., 1:]
    above, out, below = middle.unbind()
    out[:, :, 1:] += above[:, :, :-1]
    out[:, :, :-1] += below[:, :, 1:]
    # A tensor of its own: who keeps the result is not to keep what all taps brought.
    whole = out.clone() if bias is None else out + bias.view(-1, 1, 1, 1)
    return whole.transpose(0, 1)


def convolved(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """A convolution that keeps height and width, the fastest way for such a weight and batch."""
    if x.numel() <= FEW_PIXELS * x.shape[1] and is_product(weight):
        return multiplied(x, weight.flatten(1).t(), bias)
    if is_thin(weight, x.shape[0], x.shape[2:]):
        return convolved_by_taps(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=padding)


def summed(rows: Tensor) -> Tensor:
    """The sum of the rows ``(N, C)``, ``(C,)``."""
    if rows.numel() >= MANY_NUMBERS and rows.dtype == torch.float32 and rows.device.type == "cpu":
        return torch.mv(rows.t(), rows.new_ones(rows.shape[0]))
    return rows.sum(0)


def pixels(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` as ``(B H W, C)``: a view where the channels of a pixel lie side by side."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def from_pixels(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`pixels`: ``(B H W, C)`` to ``(B, C, H, W)`` with B, H and W of ``like``."""
    return rows.view(like.shape[0], *like.shape[2:], rows.shape[1]).permute(0, 3, 1, 2)
