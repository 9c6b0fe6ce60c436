"""Folded parameters in a backward pass by inversion: a few bijectors at a time, their graph cut off.

A stored backward pass folds the parameters of a whole flow at once. One that rebuilds activations to save memory must
not keep that many copies of parameters, so it folds a window of consecutive bijectors, walks back through it, and takes
what the folded tensors have gathered to the parameters before it goes on to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from flowzoo.bijectors.reversal import GradientSink
from flowzoo.nets.derivatives import is_batched
from flowzoo.nets.folding import Folding, fold_by_kind
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.tree import modules_of

M = TypeVar("M", bound=nn.Module)

WINDOW = 2**17
"""Parameters that are folded at a time; above it the arithmetic on images outweighs that on parameters."""


def windows(bijectors: Iterable[M], whole: type[nn.Module]) -> Iterator[tuple[list[M], bool]]:
    """Parts a chain in windows of consecutive bijectors, each with whether it is to be folded.

    Args:
        bijectors: What the chain consists of.
        whole: A bijector that has one of these inside folds for itself.
    """
    window: list[M] = []
    count = 0
    for bijector in bijectors:
        inside = modules_of(bijector)
        if any(isinstance(m, whole) or (isinstance(m, DataDependentInit) and m.wants_init()) for m in inside):
            if window:
                yield window, True
            yield [bijector], False
            window, count = [], 0
            continue
        size = sum(p.numel() for m in inside for p in m._parameters.values() if p is not None)
        if window and count + size > WINDOW:
            yield window, True
            window, count = [], 0
        window.append(bijector)
        count += size
    if window:
        yield window, True


@contextmanager
def folded_apart(*roots: nn.Module, sink: GradientSink) -> Iterator[None]:
    """Folds all modules inside ``roots``, their folded tensors leaves of the graph until the end of the context.

    Then the gradients that the sink has for these leaves flow back to the parameters, into the sink.
    """
    with torch.enable_grad():
        foldings = fold_by_kind(*roots)
    leaves = [tuple(stack.detach() for stack in folding.stacks) for folding in foldings]
    try:
        for folding, stacks in zip(foldings, leaves, strict=True):
            _hand_out_leaves(folding, stacks)
        yield
        _pull_back(foldings, sink)
    finally:
        for folding in foldings:
            for module in folding.modules:
                module.together, module.prepared = None, ()


def _hand_out_leaves(folding: Folding, stacks: tuple[Tensor, ...]) -> None:
    folding.hand_out(stacks)
    prepared = folding.modules[0].prepare(*stacks)
    for index, module in enumerate(folding.modules):
        assert module.together is not None
        for leaf, stack in zip(module.together, folding.stacks, strict=True):
            leaf.requires_grad_(stack.requires_grad)
        module.prepared = tuple(stack[index] for stack in prepared)


def _pull_back(foldings: list[Folding], sink: GradientSink) -> None:
    outputs, gradients, modules = [], [], []
    for folding in foldings:
        modules += folding.modules
        parts = zip(*(module.together or () for module in folding.modules), strict=True)
        for stack, leaves in zip(folding.stacks, parts, strict=True):
            found = [sink.pop(leaf) for leaf in leaves]
            if any(gradient is not None for gradient in found):
                outputs.append(stack)
                gradients.append(_stack_like(stack, found))
    if not outputs:
        return
    # A module may be there twice, its parameters may not.
    inside = dict.fromkeys(m for module in modules for m in modules_of(module))
    own = (p for m in inside for p in m._parameters.values() if p is not None and p.requires_grad)
    parameters = list(dict.fromkeys(own))
    # Typed as tensors throughout, but what an output does not depend on comes back as None.
    pulled: tuple[Tensor | None, ...] = torch.autograd.grad(outputs, parameters, gradients, allow_unused=True)
    for parameter, gradient in zip(parameters, pulled, strict=True):
        if gradient is None or gradient.stride() == parameter.stride() or is_batched(gradient):
            sink.add(parameter, gradient)
        else:
            # Autograd would copy it too, but all of them at once and at the end.
            sink.add(parameter, torch.empty_like(parameter).copy_(gradient))


def _stack_like(stack: Tensor, parts: list[Tensor | None]) -> Tensor:
    """Stacks what is there over zeros, in the memory layout of ``stack``."""
    if any(part is not None and is_batched(part) for part in parts):
        # Many gradients at once, which torch cannot write in place.
        nothing = torch.zeros_like(stack[0])
        return torch.stack([nothing if part is None else part for part in parts])
    out = torch.empty_like(stack)
    for row, part in zip(out.unbind(), parts, strict=True):
        if part is None:
            row.zero_()
        else:
            row.copy_(part)
    return out
