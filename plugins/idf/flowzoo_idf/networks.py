"""The convolutional networks of an integer discrete flow."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.layout import channels_last

__all__ = ["ACTIVATION_LIMIT", "CouplingNetwork"]

ACTIVATION_LIMIT = 32.0
"""Activations are clipped to [0, 32], so that their integer form has a bounded number of bits."""


class CouplingNetwork(nn.Module):
    """3x3 convolutions with clipped ReLUs and a last 1x1 convolution that starts at zero."""

    def __init__(self, in_channels: int, out_channels: int, features: int, depth: int) -> None:
        """Makes the network.

        Args:
            in_channels: Channels of its input.
            out_channels: Channels of its output.
            features: Channels in between.
            depth: Hidden 3x3 convolutions after the first.
        """
        super().__init__()
        widths = [in_channels, *[features] * (depth + 1)]
        self.hidden = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.last = nn.Conv2d(features, out_channels, 1)
        for conv in self.convolutions:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
        nn.init.zeros_(self.last.weight)

    def start_at(self, output: Tensor) -> None:
        """Makes the output ``(O,)`` that it begins with, whatever its input."""
        self.last.bias = nn.Parameter(output.clone())

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """All layers in their order."""
        return [conv for conv in (*self.hidden, self.last) if isinstance(conv, nn.Conv2d)]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``."""
        x = channels_last(x)  # where convolutions of this size are fastest, above all forwards
        for conv in self.hidden:
            x = F.hardtanh(conv(x), 0.0, ACTIVATION_LIMIT)
        out: Tensor = self.last(x)
        return out
