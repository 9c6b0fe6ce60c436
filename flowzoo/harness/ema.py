"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
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

    @torch.no_grad()
    def update(self, flow: Flow, step: int) -> None:
        """Moves the average towards ``flow`` after update number ``step``, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self.flow.state_dict(keep_vars=True), flow.state_dict(keep_vars=True)
        averages = [t.data for t in mine.values() if t.is_floating_point()]
        weights = [theirs[name].data for name, t in mine.items() if t.is_floating_point()]
        if decay > 0:
            torch._foreach_lerp_(averages, weights, 1.0 - decay)
        else:
            torch._foreach_copy_(averages, weights)
        for name, tensor in mine.items():
            if not tensor.is_floating_point():
                tensor.copy_(theirs[name])

    def ready(self) -> Flow:
        """The average in eval mode, without caches of older weights."""
        self.flow.train()
        self.flow.eval()
        return self.flow
