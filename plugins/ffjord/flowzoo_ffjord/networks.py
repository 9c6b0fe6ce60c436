"""The velocity f(z, t) of a continuous flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ActivationName = Literal["softplus", "tanh"]


class TimeLayer(nn.Module):
    """A linear layer, or a convolution 3x3, that sees the time as a further input (FFJORD, appendix B)."""

    def __init__(self, inputs: int, outputs: int, *, image: bool) -> None:
        """Makes the layer, weights as torch's own."""
        super().__init__()
        shape = (outputs, inputs + 1, 3, 3) if image else (outputs, inputs + 1)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """``(B, in, ...)`` and times ``()`` or ``(B,)`` to ``(B, out, ...)``."""
        # W (t, z) = W_z z + t W_t 1: one channel more would be copied, and is an awkward number of them.
        of_time, of_z = self.weight[:, :1], self.weight[:, 1:]
        if z.ndim == 2 and not t.ndim:
            return F.linear(z, of_z, torch.addcmul(self.bias, t, of_time[:, 0]))
        if z.ndim == 2:
            return torch.addcmul(F.linear(z, of_z, self.bias), t[:, None], of_time.T)
        # Not the same at every pixel: beyond the edge there is no time.
        ones = F.conv2d(torch.ones_like(z[:1, :1]), of_time, padding=1)
        return torch.addcmul(F.conv2d(z, of_z, self.bias, padding=1), t.reshape(-1, 1, 1, 1), ones)


class Velocity(nn.Module):
    """Layers with an activation between them, each with the time."""

    def __init__(
        self, channels: int, hidden: Sequence[int], activation: ActivationName, *, image: bool
    ) -> None:
        """Makes the network.

        Args:
            channels: Channels of images ``(B, C, H, W)``, or D of vectors.
            hidden: Channels between.
            activation: Smooth, since solvers and traces differentiate it.
            image: Whether z are images.
        """
        super().__init__()
        widths = (channels, *hidden, channels)
        self.layers = nn.ModuleList(
            TimeLayer(widths[i], widths[i + 1], image=image) for i in range(len(widths) - 1)
        )
        self.activation = activation

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """dz/dt, the shape of z, at times ``()`` or ``(B,)``."""
        *hidden, last = self.layers
        for layer in hidden:
            z = layer(z, t)
            z = F.softplus(z) if self.activation == "softplus" else torch.tanh(z)
        velocity: Tensor = last(z, t)
        return velocity
