"""MADE: a masked network whose i-th group of outputs sees the inputs before the i-th alone."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MADE", "MaskedLinear"]


class MaskedLinear(nn.Linear):
    """A linear layer with some of its weights held at zero by a mask."""

    mask: Tensor

    def __init__(self, seen: Tensor, own: Tensor, *, strict: bool) -> None:
        """Makes the layer.

        Args:
            seen: Degrees of the inputs.
            own: Degrees of the outputs; an output sees the inputs of no larger degree.
            strict: It sees those of smaller degree only.
        """
        super().__init__(len(seen), len(own))
        allowed = own[:, None] > seen[None] if strict else own[:, None] >= seen[None]
        self.register_buffer("mask", allowed.to(self.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in)`` to ``(B, out)``."""
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """Germain et al. 2015 (arXiv 1502.03509), section 4, in the order of the values, with ELU as in NAF's code."""

    def __init__(self, dims: int, hidden: tuple[int, ...], parameters: int) -> None:
        """Makes the network.

        Args:
            dims: D of ``(B, D)``, at least 2.
            hidden: Widths of the hidden layers.
            parameters: P, numbers for each value.
        """
        super().__init__()
        self.parameters_each = parameters
        inputs = torch.arange(1, dims + 1)
        degrees = [inputs, *(torch.arange(width) % (dims - 1) + 1 for width in hidden)]
        pairs = itertools.pairwise(degrees)
        self.layers = nn.ModuleList(MaskedLinear(seen, own, strict=False) for seen, own in pairs)
        self.last = MaskedLinear(degrees[-1], inputs.repeat_interleave(parameters), strict=True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, D)`` to ``(B, D, P)``; ``context`` is ignored."""
        for layer in self.layers:
            x = F.elu(layer(x))
        out: Tensor = self.last(x).unflatten(1, (-1, self.parameters_each))
        return out
