"""The rectifier network inside NICE's couplings."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.accelerate import accelerated


class MLP(nn.Module):
    """Linear layers with ReLU between them and a linear output (NICE, section 5.1)."""

    def __init__(
        self, in_features: int, hidden: tuple[int, ...], out_features: int, init_range: float
    ) -> None:
        """Makes the network, all weights uniform in ``[-init_range, init_range]`` and biases zero.

        With ``init_range`` 0 the hidden layers start as torch's default and the last at zero: an identity coupling.
        """
        super().__init__()
        widths = (in_features, *hidden, out_features)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        if init_range > 0:
            for layer in self.layers:
                assert isinstance(layer, nn.Linear)
                nn.init.uniform_(layer.weight, -init_range, init_range)
                nn.init.zeros_(layer.bias)
        else:
            for parameter in self.layers[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, in_features)``, and a context ``(B, K)`` concatenated to it, to ``(B, out_features)``."""
        if context is not None:
            x = torch.cat((x, context), dim=1)
        fast = accelerated(self, x)
        if fast is not None:
            return fast
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        out: Tensor = last(x)
        return out
