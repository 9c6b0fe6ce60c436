"""Composition of bijectors, with a choice of what the backward pass keeps."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flowzoo.bijectors.base import Bijector, zero_log_det
from flowzoo.errors import ConfigError

MemoryMode = Literal["store", "checkpoint"]


class Chain(Bijector):
    """Bijectors one after the other: z = f_n(... f_1(x)), log_det = sum of theirs.

    Attributes:
        memory: ``"store"`` keeps every activation for the backward pass; ``"checkpoint"`` keeps the input of each
            bijector and computes its activations again.
    """

    def __init__(self, *bijectors: Bijector) -> None:
        super().__init__()
        self.bijectors = nn.ModuleList(bijectors)
        self.memory: MemoryMode = "store"

    def __len__(self) -> int:
        return len(self.bijectors)

    def set_memory(self, memory: MemoryMode) -> None:
        """Chooses what the backward pass keeps; see :attr:`memory`."""
        if memory not in get_args(MemoryMode):
            raise ConfigError(f"memory is {memory!r}; choose one of {', '.join(get_args(MemoryMode))}.")
        self.memory = memory

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_det = zero_log_det(x)
        recompute = self.memory == "checkpoint" and torch.is_grad_enabled()
        for bijector in self.bijectors:
            if recompute and not isinstance(bijector, Chain):
                x, term = checkpoint(bijector, x, context, use_reentrant=False)
            else:
                x, term = bijector(x, context)
            log_det = log_det + term
        return x, log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_det = zero_log_det(z)
        for bijector in reversed(self.bijectors):
            assert isinstance(bijector, Bijector)
            z, term = bijector.inverse(z, context)
            log_det = log_det + term
        return z, log_det
