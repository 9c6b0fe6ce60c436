"""Bijectors one after the other as one operation with a backward pass of its own.

In a deep flow of narrow layers, what every operation costs beside its arithmetic adds up to as much as the arithmetic:
nodes of the graph, checks, tensors made to be read once. In a row these are paid once, and what nothing else holds is
written over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowzoo.bijectors.base import sum_terms
from flowzoo.nets.derivatives import first_derivative, is_batched


class Mapped(NamedTuple):
    """What a step made of a batch.

    Attributes:
        z: The result.
        log_det: Its log-determinant ``(B,)``.
        saved: Tensors for the backward pass.
        rest: What else it needs.
        free: Whether nothing else holds ``z``, so that the next step may write over it.
    """

    z: Tensor
    log_det: Tensor
    saved: Sequence[Tensor]
    rest: Any = None
    free: bool = False


class Incoming(NamedTuple):
    """The gradients at a step's result.

    Attributes:
        z: That at z.
        log_det: That at the log-determinant, ``(B,)``.
        free: Whether nothing else holds ``z``, so that the step may write over it.
        batched: Whether these are many gradients at once, which torch cannot write in place.
        wanted: Whether the gradient at the step's input is wanted.
    """

    z: Tensor
    log_det: Tensor
    free: bool
    batched: bool
    wanted: bool


class Step(ABC):
    """What a bijector comes to for now: a map that keeps a batch's shape, outside of autograd."""

    @abstractmethod
    def apply(self, x: Tensor, free: bool) -> tuple[Tensor, Tensor]:
        """Maps a batch, which may be written over if it is ``free``: z, held by nothing else, and log-determinants."""


class RecordedStep(Step):
    """A step with gradients.

    Attributes:
        tensors: What gradients are for.
    """

    tensors: Sequence[Tensor]

    @abstractmethod
    def map(self, x: Tensor, free: bool) -> Mapped:
        """As :meth:`apply`, with all that the backward pass needs."""

    @abstractmethod
    def pull(
        self, saved: Sequence[Tensor], rest: Any, incoming: Incoming
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """The gradients at the input, held by nothing else, and at :attr:`tensors`, from what :meth:`map` saved."""

    def apply(self, x: Tensor, free: bool) -> tuple[Tensor, Tensor]:
        """See :class:`Step`."""
        mapped = self.map(x, free)
        return mapped.z, mapped.log_det


def run_row(x: Tensor, steps: Sequence[Step]) -> tuple[Tensor, Tensor]:
    """The steps one after the other, recorded ones if gradients are: the result and the log-determinant ``(B,)``."""
    if torch.is_grad_enabled():
        recorded = [step for step in steps if isinstance(step, RecordedStep)]
        assert len(recorded) == len(steps), "a step without a backward pass among gradients"
        z, log_det = _Row.apply(x, recorded, *[tensor for step in recorded for tensor in step.tensors])
        return z, log_det
    terms, free = [], False
    for step in steps:
        x, term = step.apply(x, free)
        terms.append(term)
        free = True
    return x, sum_terms(terms)


class _Row(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, steps: Sequence[RecordedStep], *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        saved: list[Tensor] = []
        terms, free = [], False
        ctx.steps, ctx.kept = steps, []
        for step in steps:
            x, term, own, rest, free = step.map(x, free)
            terms.append(term)
            saved += own
            ctx.kept.append((len(own), rest))
        ctx.save_for_backward(*saved)
        return x, sum_terms(terms)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        batched = is_batched(grad_z) or is_batched(grad_log_det)
        grad: Tensor | None = grad_z
        found: list[Tensor | None] = []
        for index in reversed(range(len(ctx.steps))):
            assert grad is not None
            count, rest = ctx.kept[index]
            own = saved[len(saved) - count :]
            del saved[len(saved) - count :]
            wanted = index > 0 or ctx.needs_input_grad[0]
            # What a step gave, nothing else holds.
            free = grad is not grad_z and not batched
            incoming = Incoming(grad, grad_log_det, free, batched, wanted)
            grad, gradients = ctx.steps[index].pull(own, rest, incoming)
            found[:0] = gradients
        return grad, None, *found
