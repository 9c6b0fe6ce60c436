"""Consecutive maps of images fused into one operation.

In a deep flow of narrow layers the fixed cost of every operation adds up to as much as the arithmetic: graph nodes,
checks, views, tensors made to be read once. In a row these are paid once, and buffers that the row owns are reused in
place.

Within a row a batch ``(B, C, H, W)`` is a matrix ``(C, N)``, one channel a line, of the N = B H W pixels of all images
one after the other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowzoo.ops.autograd import apply, in_forward_dtypes, needs_plain, plain_backward
from flowzoo.ops.drift import warn_of_drift
from flowzoo.ops.layout import channel_rows, from_channel_rows


class Mapped(NamedTuple):
    """The result of a step and what its backward pass needs.

    Attributes:
        z: The result, ``(C, N)``.
        log_derivatives: ``(K, N)``, owned by the row; their sum over an item's pixels is its log-determinant, less
            :attr:`Step.log_det`. None for zero.
        saved: Tensors for the backward pass.
        rest: Constants for the backward pass.
        donated: Whether nothing else holds ``z``, so that the next step may overwrite it.
    """

    z: Tensor
    log_derivatives: Tensor | None
    saved: Sequence[Tensor]
    rest: Any = None
    donated: bool = False


class Incoming(NamedTuple):
    """The gradients at a step's results.

    Attributes:
        z: That at z, ``(C, N)``.
        log_derivatives: That at each line of the log-derivatives, ``(N,)``.
        log_det: That at :attr:`Step.log_det`, a float64 scalar.
        donated: Whether the step may overwrite ``z``.
        wanted: Whether the gradient at the step's input is wanted.
    """

    z: Tensor
    log_derivatives: Tensor
    log_det: Tensor
    donated: bool
    wanted: bool


class Step(ABC):
    """A bijector lowered to a map of ``(C, N)`` matrices, outside autograd.

    Attributes:
        log_det: The log-determinant of every pixel, whatever its values: a float64 scalar, or None for 0. In a step
            that inverts a map it is the inverse's.
    """

    log_det: Tensor | None = None

    @abstractmethod
    def apply(self, x: Tensor, donated: bool) -> tuple[Tensor, Tensor | None]:
        """Applies the map; ``x`` may be overwritten if donated, and the result is never aliased.

        Returns:
            z, and the log-derivatives as in :class:`Mapped`; of a step that inverts a map, those of that map.
        """


class RecordedStep(Step):
    """A step with gradients.

    Attributes:
        tensors: The tensors that gradients are for, besides the input.
    """

    tensors: Sequence[Tensor]

    @abstractmethod
    def forward(self, x: Tensor, donated: bool) -> Mapped:
        """As :meth:`apply`, with all that the backward pass needs."""

    @abstractmethod
    def backward(
        self, saved: Sequence[Tensor], rest: Any, incoming: Incoming
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """The gradients at the input, never aliased, and at :attr:`tensors`, from what :meth:`forward` saved."""

    @abstractmethod
    def reverse(self, z: Tensor, incoming: Incoming) -> tuple[Tensor, Tensor, Sequence[Tensor | None]]:
        """The input, the gradient at it, and those at :attr:`tensors`, from the output alone."""

    @abstractmethod
    def plain(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """The map of ``(B, C, H, W)`` by torch's own operations, with its log-determinant ``(B,)``."""

    def apply(self, x: Tensor, donated: bool) -> tuple[Tensor, Tensor | None]:
        """See :class:`Step`."""
        mapped = self.forward(x, donated)
        return mapped.z, mapped.log_derivatives


def run_row(steps: Sequence[Step], x: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Maps ``(B, C, ...)`` by steps, outside autograd: the result and the log-determinant ``(B,)``.

    Args:
        steps: The steps, in order.
        x: The batch.
        inverse: Whether all of them invert maps, so that their log-derivatives count negatively.
    """
    sums: list[Tensor] = []
    z, donated = channel_rows(x), False
    for step in steps:
        z, term = step.apply(z, donated)
        _add_term(sums, term)
        donated = True
    return from_channel_rows(z, like=x), _log_det(steps, sums, x, inverse)


def record_row(
    steps: Sequence[RecordedStep], x: Tensor, *, recompute: bool = False, invert: bool = False
) -> tuple[Tensor, Tensor]:
    """Maps ``(B, C, ...)`` by steps, with gradients.

    Args:
        steps: The steps, in order.
        x: The batch.
        recompute: Keep the input alone and compute the activations again in the backward pass.
        invert: Keep the output (and the input, for second derivatives) and rebuild the activations by inversion.
    """
    tensors = [tensor for step in steps for tensor in step.tensors]
    z, log_det = apply(_Row, x, steps, recompute, invert, *tensors)
    return z, log_det


class _Row(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, steps: Sequence[RecordedStep], recompute: bool, invert: bool, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.steps, ctx.recompute, ctx.invert = steps, recompute, invert
        ctx.pixels, ctx.count = math.prod(x.shape[2:]), len(tensors)
        if recompute or invert:
            z, log_det = run_row(steps, x)
            ctx.save_for_backward(x, *tensors, *([z] if invert else []))
            return z, log_det
        rows, saved, ctx.kept, sums = _forward(steps, channel_rows(x))
        ctx.save_for_backward(x, *tensors, *saved)
        return from_channel_rows(rows, like=x), _log_det(steps, sums, x, inverse=False)

    @staticmethod
    @in_forward_dtypes
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        tensors, saved = saved[: ctx.count], saved[ctx.count :]
        wanted = (ctx.needs_input_grad[0], *ctx.needs_input_grad[4:])
        if needs_plain((grad_z, grad_log_det)):
            found = plain_backward(_plain(ctx.steps), (x, *tensors), (grad_z, grad_log_det), wanted)
            return found[0], None, None, None, *found[1:]
        # The steps have these in common.
        for_pixels = at_pixels(grad_log_det, ctx.pixels)
        for_constants = grad_log_det.double().sum() * ctx.pixels
        given = channel_rows(grad_z)
        incoming = Incoming(given, for_pixels, for_constants, donated=False, wanted=True)
        grad: Tensor | None
        if ctx.invert:
            rebuilt, grad, gradients = _reverse(ctx.steps, channel_rows(saved[0]), incoming)
            warn_of_drift(channel_rows(x), rebuilt)
        else:
            if ctx.recompute:
                _, saved, ctx.kept, _ = _forward(ctx.steps, channel_rows(x))
            grad, gradients = _backward(ctx.steps, saved, ctx.kept, incoming, wanted[0])
        return None if grad is None else from_channel_rows(grad, like=grad_z), None, None, None, *gradients


def _forward(
    steps: Sequence[RecordedStep], z: Tensor
) -> tuple[Tensor, list[Tensor], list[tuple[int, Any]], list[Tensor]]:
    """The result, the saved tensors of all steps, their number and constants for each step, and log-derivatives."""
    saved: list[Tensor] = []
    kept: list[tuple[int, Any]] = []
    sums: list[Tensor] = []
    donated = False
    for step in steps:
        z, term, own, rest, donated = step.forward(z, donated)
        _add_term(sums, term)
        saved += own
        kept.append((len(own), rest))
    return z, saved, kept, sums


def _backward(
    steps: Sequence[RecordedStep],
    saved: list[Tensor],
    kept: list[tuple[int, Any]],
    incoming: Incoming,
    wanted: bool,
) -> tuple[Tensor | None, list[Tensor | None]]:
    saved, grad = list(saved), incoming.z
    found: list[Tensor | None] = []
    for index in reversed(range(len(steps))):
        count, rest = kept[index]
        own = saved[len(saved) - count :]
        del saved[len(saved) - count :]
        # Nothing else holds the gradient that a step gave.
        donated = grad is not incoming.z
        now = incoming._replace(z=grad, donated=donated, wanted=index > 0 or wanted)
        grad_x, gradients = steps[index].backward(own, rest, now)
        found[:0] = gradients
        if grad_x is None:
            return None, found
        grad = grad_x
    return grad, found


def _reverse(
    steps: Sequence[RecordedStep], z: Tensor, incoming: Incoming
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    found: list[Tensor | None] = []
    for step in reversed(steps):
        z, grad, gradients = step.reverse(z, incoming)
        incoming = incoming._replace(z=grad)
        found[:0] = gradients
    return z, incoming.z, found


def _plain(steps: Sequence[RecordedStep]) -> Any:
    def plain(x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        remaining, total = list(tensors), x.new_zeros(x.shape[0])
        for step in steps:
            own = remaining[: len(step.tensors)]
            del remaining[: len(step.tensors)]
            x, log_det = step.plain(x, *own)
            total = total + log_det
        return x, total

    return plain


def at_pixels(grad_log_det: Tensor, pixels: int) -> Tensor:
    """The gradient at log-derivatives, ``(N,)``, from that at the log-determinants ``(B,)`` of so many pixels each."""
    return grad_log_det[:, None].expand(-1, pixels).reshape(-1)


def _add_term(sums: list[Tensor], term: Tensor | None) -> None:
    """Adds log-derivatives to the last of the sums, if they are of one shape; else they are a sum of their own."""
    if term is not None and sums and sums[-1].shape == term.shape:
        sums[-1].add_(term)
    elif term is not None:
        sums.append(term)


def _log_det(steps: Sequence[Step], terms: Sequence[Tensor], x: Tensor, inverse: bool) -> Tensor:
    """The log-determinant ``(B,)`` that these log-derivatives and the steps' own ones add up to."""
    pixels = math.prod(x.shape[2:])
    constants = [step.log_det.detach() for step in steps if step.log_det is not None]
    own = (torch.stack(constants).sum() * pixels).to(x.dtype) if constants else None
    total: Tensor | None = None
    for term in terms:
        of_items = term.view(term.shape[0], x.shape[0], pixels).sum((0, 2))
        total = of_items if total is None else total.add_(of_items)
    if total is None:
        return x.new_zeros(x.shape[0]) if own is None else own.repeat(x.shape[0])
    total = total.neg_() if inverse else total
    return total if own is None else total.add_(own)
