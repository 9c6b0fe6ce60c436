"""Folding parameters into what is computed with, for many modules at once.

A deep flow is a long row of small modules of the same shapes, each of which makes its kernel or matrix of several
parameters by a dozen operations on tiny tensors. One by one these cost as much as the arithmetic on the images. A
training step therefore folds all modules of one kind together, stacked: a dozen operations for the whole flow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flowzoo.nets.caching import CachesInEval
from flowzoo.nets.tree import modules_of


class Folds(CachesInEval):
    """Base of modules that fold their parameters before they use them.

    A subclass writes :meth:`raw` and :meth:`fold`, and calls :meth:`folded` where it needs the result.

    Attributes:
        together: What this module's parameters came to when they were folded together with others', for now.
        prepared: What :meth:`prepare` made of it, during a backward pass by inversion.
    """

    def __init__(self) -> None:
        super().__init__()
        self.together: tuple[Tensor, ...] | None = None
        self.prepared: tuple[Tensor, ...] = ()

    def raw(self) -> tuple[Tensor, ...]:
        """The parameters to fold."""
        raise NotImplementedError(f"{type(self).__name__} must define raw")

    def fold(self, *raw: Tensor) -> tuple[Tensor, ...]:
        """What they come to, of stacks ``(K, ...)`` of them to stacks ``(K, ...)``."""
        raise NotImplementedError(f"{type(self).__name__} must define fold")

    def prepare(self, *folded: Tensor) -> tuple[Tensor, ...]:
        """What a backward pass by inversion needs besides, of stacks to stacks, without gradients; nothing here."""
        return ()

    def constants(self) -> Hashable:
        """Whatever else :meth:`fold` depends on: modules are folded together if it is equal."""
        return None

    def folded(self) -> tuple[Tensor, ...]:
        """What this module's parameters come to, folded alone unless that was done together with others."""
        if self.together is not None:
            return self.together
        return tuple(t[0] for t in self.fold(*(t.unsqueeze(0) for t in self.raw())))


def differentiable(root: nn.Module) -> list[Tensor]:
    """What gradients of a module are for: its parameters and the tensors that they were folded to, each once."""
    tensors: list[Tensor | None] = []
    for module in modules_of(root):
        tensors.extend(module._parameters.values())
        if isinstance(module, Folds) and module.together is not None:
            tensors.extend(module.together)
    return [t for t in dict.fromkeys(tensors) if t is not None and t.requires_grad]


class Folding(NamedTuple):
    """What modules of one kind come to: for each output of ``fold``, a stack ``(K, ...)`` over the K modules."""

    modules: list[Folds]
    stacks: tuple[Tensor, ...]

    def hand_out(self, stacks: tuple[Tensor, ...]) -> None:
        """Gives each module its part of such stacks, for use in place of its own folding."""
        for module, *own in zip(self.modules, *(stack.unbind() for stack in stacks), strict=True):
            # Not by way of torch's own __setattr__, which takes as long as some of the folding.
            object.__setattr__(module, "together", tuple(own))
            module.forget()


def fold_by_kind(*roots: nn.Module) -> list[Folding]:
    """Folds all modules inside ``roots`` now, those of a kind together."""
    kinds: dict[Hashable, list[tuple[Folds, tuple[Tensor, ...]]]] = {}
    for module in (module for root in roots for module in modules_of(root)):
        if isinstance(module, Folds):
            raw = module.raw()
            kind: list[Any] = [type(module), module.constants()]
            for tensor in raw:
                kind += tensor.shape, tensor.dtype, tensor.device
            kinds.setdefault(tuple(kind), []).append((module, raw))
    found = []
    for members in kinds.values():
        modules = [module for module, _ in members]
        stacks = [torch.stack(tensors) for tensors in zip(*(raw for _, raw in members), strict=True)]
        found.append(Folding(modules, modules[0].fold(*stacks)))
    return found


@contextmanager
def folded_together(*roots: nn.Module) -> Iterator[None]:
    """Folds all modules inside ``roots`` for use until the end of the context.

    Gradients flow back through it once, after those of all modules: what is computed again on the way, as a
    checkpoint does, must be given the same folded tensors (:func:`same_folding`).
    """
    foldings = fold_by_kind(*roots)
    try:
        for folding in foldings:
            folding.hand_out(folding.stacks)
        yield
    finally:
        for folding in foldings:
            for module in folding.modules:
                object.__setattr__(module, "together", None)


def same_folding(root: nn.Module) -> Callable[[], AbstractContextManager[None]]:
    """What makes contexts for later in which everything inside ``root`` uses the folded tensors of now."""
    now = [(module, module.together) for module in modules_of(root) if isinstance(module, Folds)]
    return lambda: _handed_out(now)


@contextmanager
def _handed_out(tensors: list[tuple[Folds, tuple[Tensor, ...] | None]]) -> Iterator[None]:
    before = [(module, module.together) for module, _ in tensors]
    for module, own in tensors:
        module.together = own
    try:
        yield
    finally:
        for module, own in before:
            module.together = own
