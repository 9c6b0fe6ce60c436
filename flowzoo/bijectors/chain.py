"""Composition of bijectors, with a choice of what the backward pass keeps."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from operator import is_
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flowzoo.bijectors.base import Bijector, sum_terms, zero_log_det
from flowzoo.bijectors.passage import Part, marks, through
from flowzoo.bijectors.refolding import folded_apart, windows
from flowzoo.bijectors.reversal import Pull, Reversed, frozen_statistics, run_by_inversion
from flowzoo.bijectors.rows import Row
from flowzoo.errors import ConfigError
from flowzoo.nets.caching import CachesInEval
from flowzoo.nets.folding import folded_together, same_folding
from flowzoo.nets.kernels import are_many

MemoryMode = Literal["store", "checkpoint", "invertible"]


class _Known(NamedTuple):
    """What the bijectors of a chain have joined to, and the marks of that."""

    marks: list[object]
    parts: list[Part]

    def holds(self, bijectors: list[Bijector]) -> bool:
        """Whether they still join to the same."""
        now = marks(bijectors)
        return len(now) == len(self.marks) and all(map(is_, now, self.marks))


class Chain(Bijector, CachesInEval):
    """Bijectors one after the other: z = f_n(... f_1(x)), log_det = sum of theirs.

    Attributes:
        memory: ``"store"`` keeps every activation for the backward pass; ``"checkpoint"`` keeps the input of each
            bijector and computes its activations again; ``"invertible"`` keeps only the chain's output and rebuilds
            everything by inversion, so that memory does not grow with depth.
        reversals: Number of backward passes by inversion, of which one in a hundred measures its drift.
    """

    def __init__(self, *bijectors: Bijector) -> None:
        super().__init__()
        self.bijectors = nn.ModuleList(bijectors)
        self.memory: MemoryMode = "store"
        self.reversals = 0

    def __len__(self) -> int:
        return len(self.bijectors)

    def set_memory(self, memory: MemoryMode) -> None:
        """Chooses what the backward pass keeps; see :attr:`memory`."""
        if memory not in get_args(MemoryMode):
            raise ConfigError(f"memory is {memory!r}; choose one of {', '.join(get_args(MemoryMode))}.")
        self.memory = memory

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.memory == "invertible" and torch.is_grad_enabled():
            return run_by_inversion(self, x, context)
        return self.run(x, context)

    def run(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """One bijector after the other, stored or checkpointed."""
        terms = [zero_log_det(x)]
        recompute = self.memory == "checkpoint" and torch.is_grad_enabled()
        for window, fold in self._windows():
            with folded_together(*window) if fold else nullcontext():
                run = self._recomputed if recompute else self._in_rows
                x, found = run(window, x, context)
                terms += found
        return x, sum_terms(terms)

    def _in_rows(
        self, bijectors: list[Bijector], x: Tensor, context: Tensor | None, inverse: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Maps by these bijectors; how they fall into rows is kept while the model stays as it is."""
        key = (inverse, context is None, x.shape[1:], x.dtype, are_many(x))
        known: _Known | None = self.known(key)
        holds = known is not None and known.holds(bijectors)
        z, terms, used = through(known.parts if known and holds else bijectors, x, context, inverse=inverse)
        if not holds and any(isinstance(part, Row) for part in used):
            self.keep(key, _Known(marks(bijectors), used))
        return z, terms

    @staticmethod
    def _recomputed(
        bijectors: list[Bijector], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Maps by these bijectors, of which each keeps its input and computes the rest again."""
        terms = []
        for bijector in bijectors:
            if isinstance(bijector, Chain):
                x, term = bijector(x, context)
            else:
                x, term = checkpoint(
                    bijector, x, context, use_reentrant=False, context_fn=lambda b=bijector: _twice(b)
                )
            terms.append(term)
        return x, terms

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, terms = self._in_rows(list(reversed(self._all())), z, context, inverse=True)
        return x, sum_terms([zero_log_det(z), *terms])

    def reverse(self, z: Tensor, context: Tensor | None, pull: Pull) -> Reversed:
        """Walks the chain from its end; see :mod:`flowzoo.bijectors.reversal`."""
        grad_context: Tensor | None = None
        for window, fold in reversed(self._windows()):
            with folded_apart(*window, sink=pull.sink) if fold else nullcontext():
                for bijector in reversed(window):
                    z, grad_z, grad_term = bijector.reverse(z, context, pull)
                    pull = pull._replace(grad_z=grad_z)
                    if grad_term is not None:
                        grad_context = grad_term if grad_context is None else grad_context + grad_term
        return Reversed(z, pull.grad_z, grad_context)

    def _all(self) -> list[Bijector]:
        return list(self.bijectors)  # type: ignore[arg-type]

    def _windows(self) -> list[tuple[list[Bijector], bool]]:
        """What to fold together, where activations are rebuilt; else everything, folded elsewhere or kept."""
        if self.memory == "invertible" and self.training and not torch.is_grad_enabled():
            return list(windows(self._all(), Chain))
        return [(self._all(), False)]


def _twice(bijector: Bijector) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first and of every further evaluation of a checkpointed bijector."""
    return nullcontext(), _Again(bijector)


class _Again(AbstractContextManager[None]):
    """The state in which a bijector gives again what it gives now; may be entered any number of times."""

    def __init__(self, bijector: Bijector) -> None:
        self._bijector = bijector
        self._folding = same_folding(bijector)
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        stack.enter_context(self._folding())
        stack.enter_context(frozen_statistics(self._bijector))
        self._entered.append(stack)

    def __exit__(self, *exception: object) -> None:
        self._entered.pop().close()
