"""Backward passes that rebuild activations by inversion instead of storing them.

A chain of bijectors needs no stored activations: its output determines every one of them (Gomez et al., 2017, for
residual networks). The backward pass walks the chain from its end; each bijector inverts its output, evaluates itself
again with gradients, and hands input and input gradient to the one before it. Peak memory is that of one bijector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.replicas import replica, tensors_of
from flowzoo.nets.tape import Tape, recording, replaying
from flowzoo.ops.autograd import apply, in_forward_dtypes, needs_plain, plain_backward
from flowzoo.ops.drift import warn_of_drift


class Reversed(NamedTuple):
    """The result of one bijector's backward pass by inversion: its input, and the gradients that reach it."""

    x: Tensor
    grad_x: Tensor
    grad_context: Tensor | None


class GradientSink:
    """Sums the gradients of tensors, by tensor."""

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}

    def add(self, tensor: Tensor, gradient: Tensor | None) -> None:
        """Adds a gradient; None is nothing."""
        if gradient is not None:
            known = self._sums.get(id(tensor))
            self._sums[id(tensor)] = gradient if known is None else known + gradient

    def get(self, tensor: Tensor) -> Tensor | None:
        """The sum for a tensor, or None if nothing was added."""
        return self._sums.get(id(tensor))


class Arithmetic(NamedTuple):
    """How couplings are computed during the walk; the engine passes faster functions of the same values.

    Attributes:
        transform: ``(coupling, x, parameters)`` to ``(z, log_det)`` of the transformed half.
        invert: ``(coupling, z, parameters)`` to ``(x, log_det)``.
        around: A context for every evaluation.
    """

    transform: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]] = lambda c, x, p: c._transform(x, p)
    invert: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]] = lambda c, z, p: c._invert(z, p)
    around: Callable[[], AbstractContextManager[None]] = nullcontext


class Pull(NamedTuple):
    """The gradients at a bijector's outputs, of z ``(B, ...)`` and of log_det ``(B,)``, and where others are summed."""

    grad_z: Tensor
    grad_log_det: Tensor
    sink: GradientSink
    arithmetic: Arithmetic

    def through(
        self,
        bijector: Bijector,
        outputs: Sequence[Tensor],
        gradients: Sequence[Tensor],
        inputs: Sequence[Tensor],
    ) -> list[Tensor]:
        """Vector-Jacobian product for ``inputs``; that for the bijector's own tensors goes to the sink."""
        own = tensors_of((bijector,))
        pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if o.requires_grad]
        # Typed as tensors throughout, but what an output does not depend on comes back as None.
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            [o for o, _ in pairs], [*inputs, *own], [g for _, g in pairs], allow_unused=True
        )
        for tensor, gradient in zip(own, found[len(inputs) :], strict=True):
            self.sink.add(tensor, gradient)
        return [
            torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found[: len(inputs)], strict=True)
        ]


ClosedForm = Callable[[Any, Tensor, "Tensor | None", Pull], Reversed]

CLOSED_FORMS: dict[type[Bijector], ClosedForm] = {}
"""Backward passes by inversion that cost less than :func:`reverse_by_evaluation`, by type; see reversals.py."""


def run_by_inversion(
    bijectors: Sequence[Bijector], x: Tensor, context: Tensor | None, arithmetic: Arithmetic | None = None
) -> tuple[Tensor, Tensor]:
    """Runs bijectors one after the other so that the backward pass rebuilds their activations.

    Returns:
        The result and the sum of log-determinants ``(B,)``.
    """
    tensors = tensors_of(bijectors)
    z, log_det = apply(_ByInversion, bijectors, tensors, arithmetic or Arithmetic(), x, context, *tensors)
    return z, log_det


class _ByInversion(torch.autograd.Function):
    """The bijectors as one node of the graph that keeps their output (and input, to measure the drift)."""

    @staticmethod
    def forward(
        ctx: Any,
        bijectors: Sequence[Bijector],
        originals: list[Tensor],
        arithmetic: Arithmetic,
        x: Tensor,
        context: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        # Copies keep the tensors of this pass: functional_call takes its own back before the backward pass.
        ctx.bijectors = [replica(bijector, (), ()) for bijector in bijectors]
        ctx.originals, ctx.arithmetic = originals, arithmetic
        ctx.tapes, ctx.has_context = [Tape() for _ in bijectors], context is not None
        z, log_det = _run(bijectors, ctx.tapes, recording, x, context)
        ctx.save_for_backward(z, x, *(() if context is None else (context,)), *tensors)
        # A chain of nothing would return its input itself.
        return z.view_as(z), log_det

    @staticmethod
    @in_forward_dtypes
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        z, *inputs = ctx.saved_tensors
        found = _plain(ctx, inputs, gradients) if needs_plain(gradients) else _walk(ctx, z, inputs, gradients)
        if not ctx.has_context:
            found.insert(1, None)
        return None, None, None, *found


def _run(
    bijectors: Iterable[Bijector],
    tapes: Sequence[Tape],
    taping: Callable[[Tape], AbstractContextManager[None]],
    x: Tensor,
    context: Tensor | None,
) -> tuple[Tensor, Tensor]:
    log_det = x.new_zeros(x.shape[0])
    for bijector, tape in zip(bijectors, tapes, strict=True):
        with taping(tape):
            x, term = bijector(x, context)
        log_det = log_det + term
    return x, log_det


def _plain(ctx: Any, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients from stored activations, as second derivatives need them."""

    def again(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        x, *rest = inputs
        context = rest.pop(0) if ctx.has_context else None
        copies = [replica(bijector, ctx.originals, rest) for bijector in ctx.bijectors]
        return _run(copies, ctx.tapes, replaying, x, context)

    wanted = [*ctx.needs_input_grad[3 : 4 + ctx.has_context], *ctx.needs_input_grad[5:]]
    return plain_backward(again, inputs, gradients, wanted)


def _walk(ctx: Any, z: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients at the input, the context (if there is one) and the tensors, by inversion."""
    x, *rest = inputs
    context = rest.pop(0) if ctx.has_context else None
    leaves = [fresh(tensor) for tensor in rest]
    pull = Pull(gradients[0], gradients[1], GradientSink(), ctx.arithmetic)
    grad_context: Tensor | None = None
    for bijector, tape in zip(reversed(ctx.bijectors), reversed(ctx.tapes), strict=True):
        with replaying(tape):
            z, grad_z, term = reverse(replica(bijector, ctx.originals, leaves), z, context, pull)
        pull = pull._replace(grad_z=grad_z)
        grad_context = _added(grad_context, term)
    warn_of_drift(x, z)
    found: list[Tensor | None] = [pull.grad_z, *([grad_context] if ctx.has_context else [])]
    return [*found, *(pull.sink.get(leaf) for leaf in leaves)]


def reverse(bijector: Bijector, z: Tensor, context: Tensor | None, pull: Pull) -> Reversed:
    """The backward pass of one bijector from its output alone, in closed form where there is one."""
    known = _closed_form(bijector)
    return (
        reverse_by_evaluation(bijector, z, context, pull)
        if known is None
        else known(bijector, z, context, pull)
    )


def _closed_form(bijector: Bijector) -> ClosedForm | None:
    """The closed form of a bijector's class, if the bijector maps as that class does."""
    own = type(bijector)
    for kind in own.__mro__:
        if kind in CLOSED_FORMS:
            same = own._forward is kind._forward and own._inverse is kind._inverse
            return CLOSED_FORMS[kind] if same else None
    return None


def reverse_by_evaluation(bijector: Bijector, z: Tensor, context: Tensor | None, pull: Pull) -> Reversed:
    """The backward pass of any bijector: inverts, evaluates again, differentiates."""
    with pull.arithmetic.around():
        with torch.no_grad():
            x, _ = bijector.inverse(z, context)
        with torch.enable_grad():
            inputs = (fresh(x),) if context is None else (fresh(x), fresh(context))
            outputs = bijector(*inputs)
    grad_x, *grad_context = pull.through(bijector, outputs, (pull.grad_z, pull.grad_log_det), inputs)
    return Reversed(x, grad_x, *(grad_context or (None,)))


def fresh(x: Tensor) -> Tensor:
    """A leaf of the same values that wants a gradient."""
    return x.detach().requires_grad_()


def _added(total: Tensor | None, term: Tensor | None) -> Tensor | None:
    return term if total is None else total if term is None else total + term
