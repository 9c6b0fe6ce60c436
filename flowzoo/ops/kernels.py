"""A convolution with its parameters folded into one kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.ops.products import FEW_PIXELS, is_product, is_thin

# Outputs from which on a call of oneDNN, which costs more than torch's own, is the faster one.
WORTH_PACKING = 2**14

# Images of a batch from which on kernels are packed for many: the packing for one image is slow for a hundred.
MANY_IMAGES = 8

# Weights of which all together are below this in size let inputs below 1e20 through two layers and more.
SMALL = 1e6


class Kernel(NamedTuple):
    """A convolution that keeps height and width: (s w) * x + o * 1 + b + e * (1 - inside).

    Whatever is large is multiplied right before it is convolved with, one layer at a time, while it is in the cache.

    Attributes:
        weight: w, ``(O, I, k, k)``; in evaluation possibly in oneDNN's own layout.
        bias: b, ``(O,)``.
        scale: s, ``(O,)``, or None for 1.
        edge: e, ``(O, k k)``: added by each tap where it is outside the image, or None.
        ones: o, ``(O, 1, k, k)``: the taps of a channel of ones to be added to the input, or None.
        outside: With e, which taps at a pixel are outside, ``(H W, k k)``.
        padding: k // 2.
        joined: Whether w has taken in o, as its last channel.
        small: Whether weights, bias and edge are known to be so small that no sum of their products overflows.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor | None = None
    edge: Tensor | None = None
    ones: Tensor | None = None
    outside: Tensor | None = None
    padding: int = 0
    joined: bool = False
    small: bool = False

    def merged(self, dtype: torch.dtype) -> Kernel:
        """The kernel in this dtype, its scale and its channel of ones in its weight."""
        if self.scale is None and self.ones is None and self.bias.dtype == dtype:
            return self
        weight, bias, edge = self.weight, self.bias, self.edge
        if self.scale is not None:
            weight = weight * self.scale.view(-1, 1, 1, 1)
        if self.ones is not None:
            weight = torch.cat((weight, self.ones), dim=1)
        if bias.dtype != dtype:
            weight, bias = weight.to(dtype), bias.to(dtype)
            edge = None if edge is None else edge.to(dtype)
        joined = self.joined or self.ones is not None
        return Kernel(weight, bias, None, edge, None, self.outside, self.padding, joined, self.small)

    def packed(self, batch: int, size: torch.Size) -> Kernel:
        """A merged kernel in oneDNN's own layout for such inputs, where that pays; worth it if it is used again."""
        pixels = batch * math.prod(size)
        if pixels * self.bias.numel() < WORTH_PACKING or not _has_onednn(self.weight):
            return self
        parts = [part for part in (self.weight, self.bias, self.edge) if part is not None]
        small = bool(sum(part.abs().sum() for part in parts) < SMALL)
        if (pixels <= FEW_PIXELS and is_product(self.weight)) or is_thin(self.weight, batch, size):
            return self._replace(small=small)
        pads, ones = [self.padding] * 2, [1, 1]
        given = [batch, self.weight.shape[1], *size]
        weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, pads, ones, ones, 1, given)
        return self._replace(weight=weight, small=small)

    def at_the_edge(self) -> Tensor | None:
        """The edge's share of every image, ``(H W, O)``, or None."""
        if self.edge is None or self.outside is None:
            return None
        return self.outside.to(self.edge.dtype) @ self.edge.t()


@lru_cache(maxsize=64)
def outside_taps(size: torch.Size, kernel: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Which taps of a kernel are outside an image of this ``(H, W)`` at each pixel, ``(H W, k k)``."""
    # Constants that every later call uses, whatever mode the first one is made in.
    with torch.inference_mode(False), torch.no_grad():
        inside = torch.ones(1, 1, *size, dtype=dtype, device=device)
        return 1 - F.unfold(inside, (kernel, kernel), padding=kernel // 2)[0].t()


def are_many(x: Tensor) -> bool:
    """Whether a batch has :data:`MANY_IMAGES` or more; part of the key of packed kernels."""
    return x.shape[0] >= MANY_IMAGES


TENSORS = 5
"""Fields of a kernel that have gradients."""


def tensors_of(kernels: Sequence[Kernel]) -> list[Tensor]:
    """The tensors of kernels that have gradients, in order."""
    fields: list[Any] = [field for kernel in kernels for field in kernel[:TENSORS]]
    return [field for field in fields if field is not None]


def with_ones(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` and a channel of ones, channels last in memory."""
    batch, channels, height, width = x.shape
    out = x.new_empty((batch, height, width, channels + 1), dtype=dtype).permute(0, 3, 1, 2)
    out[:, :-1].copy_(x)
    out[:, -1].fill_(1)
    return out


def add_to_each_(rows: Tensor, x: Tensor) -> Tensor:
    """Adds ``(H W, O)``, as :meth:`Kernel.at_the_edge` gives it, to every image of ``(B, O, H, W)``."""
    # Laid out as the image is.
    return x.add_(rows.view(*x.shape[2:], -1).permute(2, 0, 1))


def _has_onednn(x: Tensor) -> bool:
    """Whether oneDNN can be called for it; the operations are torch's own and may go with another version."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def structure_of(kernels: Sequence[Kernel]) -> list[Kernel]:
    """The kernels without their tensors: True where a tensor is, which :func:`kernels_of` puts back."""
    return [
        Kernel(*(field is not None or None for field in kernel[:TENSORS]), *kernel[TENSORS:])  # type: ignore[arg-type]
        for kernel in kernels
    ]


def kernels_of(structure: Sequence[Kernel], tensors: Sequence[Tensor]) -> list[Kernel]:
    """Kernels of this structure with these tensors: the inverse of :func:`structure_of` and :func:`tensors_of`."""
    remaining = iter(tensors)
    return [
        Kernel(*(None if field is None else next(remaining) for field in kernel[:TENSORS]), *kernel[TENSORS:])  # type: ignore[arg-type]
        for kernel in structure
    ]
