"""Bijectors one after the other as one operation with a backward pass of its own.

In a deep flow of narrow layers, what every operation costs beside its arithmetic adds up to as much as the arithmetic:
nodes of the graph, checks, views, tensors made to be read once. In a row these are paid once, and what nothing else
holds is written over.

Within a row a batch ``(B, C, H, W)`` is a matrix ``(C, N)``, one channel a line, of the N = B H W pixels of all images
one after the other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowzoo.bijectors.layout import channel_rows, from_channel_rows
from flowzoo.nets.derivatives import first_derivative, is_batched, is_transformed


class Mapped(NamedTuple):
    """What a step made of a batch.

    Attributes:
        z: The result, ``(C, N)``.
        log_derivatives: Tensor held by nothing else of which the sum over an item is its log-determinant, ``(K, N)``,
            less :attr:`Step.log_det`; None for nothing.
        saved: Tensors for the backward pass.
        rest: What else it needs.
        free: Whether nothing else holds ``z``, so that the next step may write over it.
    """

    z: Tensor
    log_derivatives: Tensor | None
    saved: Sequence[Tensor]
    rest: Any = None
    free: bool = False


class Incoming(NamedTuple):
    """The gradients at a step's results.

    Attributes:
        z: That at z, ``(C, N)``.
        log_derivatives: That at each line of the log-derivatives, ``(N,)``.
        log_det: That at :attr:`Step.log_det`, a float64 scalar.
        free: Whether nothing else holds ``z``, so that the step may write over it.
        batched: Whether these are many gradients at once, which torch cannot write in place.
        wanted: Whether the gradient at the step's input is wanted.
    """

    z: Tensor
    log_derivatives: Tensor
    log_det: Tensor
    free: bool
    batched: bool
    wanted: bool


class Step(ABC):
    """What a bijector comes to for now: a map of matrices ``(C, N)``, outside of autograd.

    Attributes:
        log_det: The log-determinant that every pixel has, whatever its values: a float64 scalar, or None for 0. Of
            a step that inverts a map it is the inverse's.
    """

    log_det: Tensor | None = None

    @abstractmethod
    def apply(self, x: Tensor, free: bool) -> tuple[Tensor, Tensor | None]:
        """Maps a batch, which may be written over if it is ``free``, to what nothing else holds.

        Returns:
            z, and the log-derivatives as in :class:`Mapped`; of a step that inverts a map, those of that map.
        """


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

    def apply(self, x: Tensor, free: bool) -> tuple[Tensor, Tensor | None]:
        """See :class:`Step`."""
        mapped = self.map(x, free)
        return mapped.z, mapped.log_derivatives


class Row:
    """Steps one after the other."""

    def __init__(self, steps: Sequence[Step], inverse: bool = False) -> None:
        """Makes the row.

        Args:
            steps: The steps, all of them with gradients (:class:`RecordedStep`) where gradients are wanted.
            inverse: Whether all of them invert maps, so that their log-derivatives count negatively.
        """
        self.steps = steps
        self.inverse = inverse
        with torch.no_grad():
            constants = [step.log_det for step in steps if step.log_det is not None]
            self.log_det = torch.stack(constants).sum() if constants else None

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(B, C, ...)``, with gradients if they are recorded: the result and the log-determinant ``(B,)``."""
        if torch.is_grad_enabled():
            recorded = [step for step in self.steps if isinstance(step, RecordedStep)]
            assert len(recorded) == len(self.steps), "a step without a backward pass among gradients"
            z, log_det = _Row.apply(x, self, *[tensor for step in recorded for tensor in step.tensors])
            return z, log_det
        sums: list[Tensor] = []
        z, free = channel_rows(x), False
        # There is nothing to record, and a look at whether there is, is part of what every call costs.
        with nullcontext() if is_transformed() else torch._C._AutoDispatchBelowAutograd():
            for step in self.steps:
                z, term = step.apply(z, free)
                add_term(sums, term)
                free = True
        return from_channel_rows(z, like=x), self.sum(sums, x)

    def sum(self, terms: Sequence[Tensor], x: Tensor) -> Tensor:
        """The log-determinant ``(B,)`` of what these log-derivatives and the steps' own ones add up to."""
        pixels = math.prod(x.shape[2:])
        own = None if self.log_det is None else (self.log_det * pixels).to(x.dtype)
        total: Tensor | None = None
        for term in terms:
            of_items = term.view(term.shape[0], x.shape[0], pixels).sum((0, 2))
            total = of_items if total is None else total.add_(of_items)
        if total is None:
            return x.new_zeros(x.shape[0]) if own is None else own.expand(x.shape[0])
        total = total.neg_() if self.inverse else total
        return total if own is None else total.add_(own)


def add_term(sums: list[Tensor], term: Tensor | None) -> None:
    """Adds log-derivatives to the last of the sums, if they are of one shape; else they are a sum of their own."""
    if term is not None and sums and sums[-1].shape == term.shape:
        sums[-1].add_(term)
    elif term is not None:
        sums.append(term)


def at_pixels(grad_log_det: Tensor, pixels: int) -> Tensor:
    """The gradient at log-derivatives, ``(N,)``, from that at the log-determinants ``(B,)`` of so many pixels each."""
    return grad_log_det[:, None].expand(-1, pixels).reshape(-1)


def at_constants(grad_log_det: Tensor, pixels: int) -> Tensor:
    """The gradient at a log-determinant that every pixel has, a float64 scalar, from the same."""
    return grad_log_det.double().sum() * pixels


class _Row(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, row: Row, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        saved: list[Tensor] = []
        sums: list[Tensor] = []
        ctx.row, ctx.kept, ctx.pixels = row, [], math.prod(x.shape[2:])
        z, free = channel_rows(x), False
        for step in row.steps:
            assert isinstance(step, RecordedStep)
            z, term, own, rest, free = step.map(z, free)
            add_term(sums, term)
            saved += own
            ctx.kept.append((len(own), rest))
        ctx.save_for_backward(*saved)
        return from_channel_rows(z, like=x), row.sum(sums, x)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        batched = is_batched(grad_z) or is_batched(grad_log_det)
        # What the steps have in common.
        for_pixels, for_constants = (
            at_pixels(grad_log_det, ctx.pixels),
            at_constants(grad_log_det, ctx.pixels),
        )
        given = channel_rows(grad_z)
        grad: Tensor | None = given
        found: list[Tensor | None] = []
        for index in reversed(range(len(ctx.row.steps))):
            assert grad is not None
            count, rest = ctx.kept[index]
            own = saved[len(saved) - count :]
            del saved[len(saved) - count :]
            wanted = index > 0 or ctx.needs_input_grad[0]
            # What a step gave, nothing else holds.
            free = grad is not given and not batched
            incoming = Incoming(grad, for_pixels, for_constants, free, batched, wanted)
            grad, gradients = ctx.row.steps[index].pull(own, rest, incoming)
            found[:0] = gradients
        return None if grad is None else from_channel_rows(grad, like=grad_z), None, *found
