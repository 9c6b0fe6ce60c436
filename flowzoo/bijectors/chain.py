"""Composition of bijectors, with a choice of what the backward pass keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector, zero_log_det
from flowzoo.bijectors.invertible import run_by_inversion
from flowzoo.bijectors.recompute import run_again_in_backward
from flowzoo.errors import ConfigError
from flowzoo.ops.autograd import transforms_active

MemoryMode = Literal["store", "checkpoint", "invertible"]


class Chain(Bijector):
    """Bijectors one after the other: z = f_n(... f_1(x)), log_det = sum of theirs.

    Attributes:
        memory: ``"store"`` keeps every activation for the backward pass; ``"checkpoint"`` keeps the input of each
            bijector and computes its activations again; ``"invertible"`` keeps only the chain's output and rebuilds
            everything by inversion, so that memory does not grow with depth. Inside ``torch.func`` transforms,
            forward-mode differentiation and compilers every mode stores.
    """

    def __init__(self, *bijectors: Bijector) -> None:
        super().__init__()
        self.bijectors = nn.ModuleList(bijectors)
        self.memory: MemoryMode = "store"

    def __len__(self) -> int:
        return len(self.bijectors)

    def __iter__(self) -> Iterator[Bijector]:
        return iter(self.bijectors)  # type: ignore[arg-type]

    def set_memory(self, memory: MemoryMode) -> None:
        """Chooses what the backward pass keeps; see :attr:`memory`."""
        if memory not in get_args(MemoryMode):
            raise ConfigError(f"memory is {memory!r}; choose one of {', '.join(get_args(MemoryMode))}.")
        self.memory = memory

    def effective_memory(self) -> MemoryMode:
        """The mode that applies now: without gradients, or under transforms and compilers, everything is stored."""
        if not torch.is_grad_enabled() or torch.compiler.is_compiling() or transforms_active():
            return "store"
        return self.memory

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        memory = self.effective_memory()
        if memory == "invertible":
            return run_by_inversion(list(self), x, context)
        log_det = zero_log_det(x)
        for bijector in self:
            # A chain inside has a mode of its own.
            again = memory == "checkpoint" and not isinstance(bijector, Chain)
            x, term = run_again_in_backward(bijector, x, context) if again else bijector(x, context)
            log_det = log_det + term
        return x, log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_det = zero_log_det(z)
        for bijector in reversed(list(self)):
            z, term = bijector.inverse(z, context)
            log_det = log_det + term
        return z, log_det
