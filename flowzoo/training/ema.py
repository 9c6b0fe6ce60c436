"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from flowzoo.ops import lists

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow


class Ema:
    """A second copy of a flow whose weights follow the first's.

    Made after data-dependent initialization, so that it never averages over the uninitialised weights.
    Early on the decay is ``(1 + t) / (10 + t)``, until that exceeds the one asked for. Floating buffers,
    such as running statistics, are averaged too; all others are copied.

    Attributes:
        flow: The average, in the precision of evaluation. With a decay of 0 it equals the model.
    """

    def __init__(self, flow: Flow, decay: float) -> None:
        self.decay = decay
        self.flow = copy.deepcopy(flow)
        self.flow.requires_grad_(False)
        self.flow.set_network_dtype(None)
        self.flow.eval()
        self._weights: list[Tensor] = list(flow.parameters())
        # Not their .data: writing there would not count as a change, on which kept inverses rely.
        self._averages: list[Tensor] = list(self.flow.parameters())
        # Buffers may be replaced as well as written to, so they are looked up each time.
        self._buffers = [
            (mine, theirs, name)
            for mine, theirs in zip(self.flow.modules(), flow.modules(), strict=True)
            for name, _ in theirs.named_buffers(recurse=False)
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the model after update number ``step``, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if decay > 0:
            lists.lerp_(self._averages, self._weights, 1.0 - decay)
        else:
            lists.copy_(self._averages, self._weights)
        for mine, theirs, name in self._buffers:
            average, value = getattr(mine, name), getattr(theirs, name)
            if decay > 0 and average.is_floating_point():
                average.lerp_(value, 1.0 - decay)
            else:
                average.copy_(value)

    def ready(self) -> Flow:
        """The average in eval mode, without caches of older weights."""
        self.flow.train()
        self.flow.eval()
        return self.flow
