"""The rectifier network inside NICE's couplings."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.caching import CachesInEval, watched
from flowzoo.nets.derivatives import is_transformed
from flowzoo.nets.rectified_linear import multiply, rectified_linears

MANY_ROWS = 64
"""Rows of a batch from which on products with matrices laid out beforehand are the faster ones."""


class MLP(CachesInEval):
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
        if self._is_plain(x):
            return self._multiplied(x)
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x), inplace=True)
        out: Tensor = last(x)
        return out

    def _is_plain(self, x: Tensor) -> bool:
        """Whether this comes to products on a CPU, and nobody wants the layers to be called."""
        if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or x.ndim != 2:
            return False
        if torch.compiler.is_compiling() or is_transformed() or torch.is_autocast_enabled("cpu"):
            return False
        linear = all(type(layer) is nn.Linear and layer.bias is not None for layer in self.layers)
        return (
            linear
            and not any("forward" in layer.__dict__ for layer in self.layers)
            and not watched(self.layers)
        )

    def _multiplied(self, x: Tensor) -> Tensor:
        weights: list[Tensor] = [layer.weight for layer in self.layers]  # type: ignore[misc]
        biases: list[Tensor] = [layer.bias for layer in self.layers]  # type: ignore[misc]
        if torch.is_grad_enabled():
            self.forget()
            return rectified_linears(x, weights, biases)
        matrices = [weight.t() for weight in weights]
        if len(x) >= MANY_ROWS:
            matrices = self.cached(
                "matrices",
                lambda: weights,
                lambda: [matrix.contiguous() for matrix in matrices],
                lambda: matrices,
            )
        return multiply(x, matrices, biases)
