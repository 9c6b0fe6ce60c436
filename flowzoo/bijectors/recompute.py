"""Checkpointing: a backward pass that computes the activations of a bijector again (Chen et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.replicas import replica, tensors_of
from flowzoo.nets.tape import Tape, recording, replaying
from flowzoo.ops.autograd import apply, in_forward_dtypes, plain_backward

Evaluate = Callable[[Bijector, Tensor, "Tensor | None"], tuple[Tensor, Tensor]]


def _evaluate(bijector: Bijector, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    return bijector(x, context)


def run_again_in_backward(
    bijector: Bijector, x: Tensor, context: Tensor | None, evaluate: Evaluate = _evaluate
) -> tuple[Tensor, Tensor]:
    """Evaluates a bijector so that its backward pass keeps only the input and evaluates it again.

    Args:
        bijector: The bijector.
        x: The batch.
        context: Its context.
        evaluate: How it is evaluated; the engine passes a faster way to the same values.
    """
    tensors = tensors_of((bijector,))
    z, log_det = apply(_Recomputed, evaluate, bijector, tensors, x, context, *tensors)
    return z, log_det


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        evaluate: Evaluate,
        bijector: Bijector,
        originals: list[Tensor],
        x: Tensor,
        context: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        # A copy keeps the tensors of this pass: functional_call takes its own back before the backward pass.
        ctx.evaluate, ctx.bijector = evaluate, replica(bijector, (), ())
        ctx.originals, ctx.tape = originals, Tape()
        ctx.has_context = context is not None
        with recording(ctx.tape):
            z, log_det = evaluate(bijector, x, context)
        ctx.save_for_backward(x, *(() if context is None else (context,)), *tensors)
        return z, log_det

    @staticmethod
    @in_forward_dtypes
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        inputs = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[3 : 4 + ctx.has_context], *ctx.needs_input_grad[5:]]

        def again(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            x, *rest = inputs
            context = rest.pop(0) if ctx.has_context else None
            with replaying(ctx.tape):
                z, log_det = ctx.evaluate(replica(ctx.bijector, ctx.originals, rest), x, context)
            return z, log_det

        found = plain_backward(again, inputs, gradients, wanted)
        if not ctx.has_context:
            found.insert(1, None)
        return None, None, None, *found
