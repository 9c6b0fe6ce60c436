"""Linear layers with ReLUs between them as one operation on a CPU, with a backward pass of its own.

Torch's linear layer fills its output with the bias and then adds a product to it; adding the bias to the product, and
overwriting gradients behind a ReLU by those before it, spares passes over the activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.nets.derivatives import in_forward_dtypes, is_batched
from flowzoo.nets.products import summed
from flowzoo.nets.relu import before_relu_


def rectified_linears(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """``(B, I)`` to ``(B, O)`` with gradients, by weights ``(O_i, I_i)`` and biases ``(O_i,)``."""
    out: Tensor = _RectifiedLinears.apply(x, *weights, *biases)
    return out


def multiply(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: list[Tensor] | None = None
) -> Tensor:
    """The same outside of autograd; what goes into each layer is added to ``inputs``."""
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = x.relu_() if i > 0 else x
        if inputs is not None:
            inputs.append(x)
        x = torch.mm(x, weight.t()).add_(bias)
    return x


class _RectifiedLinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = _halves(parameters)
        inputs: list[Tensor] = []
        out = multiply(x, weights, biases, inputs)
        ctx.save_for_backward(*parameters, *inputs)
        return out

    @staticmethod
    @in_forward_dtypes
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        count = len(saved) // 3
        parameters, inputs = saved[: 2 * count], saved[2 * count :]
        if torch.is_grad_enabled():
            return _differentiable(inputs[0], parameters, grad, ctx.needs_input_grad)
        wanted, for_weights, for_biases = ctx.needs_input_grad[0], *_halves(ctx.needs_input_grad[1:])
        weights, _ = _halves(parameters)
        batched = is_batched(grad)
        grad_weights: list[Tensor | None] = [None] * count
        grad_biases: list[Tensor | None] = [None] * count
        for i in reversed(range(count)):
            grad_weights[i] = grad.t() @ inputs[i] if for_weights[i] else None
            grad_biases[i] = summed(grad) if for_biases[i] else None
            if i > 0:
                grad = before_relu_(grad @ weights[i], inputs[i], batched)
        return grad @ weights[0] if wanted else None, *grad_weights, *grad_biases


def _differentiable(
    x: Tensor, parameters: Sequence[Tensor], grad: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients with a graph of their own, for second derivatives: of the layers one by one."""
    # Other tensors to autograd: one may be there twice, or the input depend on a weight.
    x, *aliases = (tensor.view_as(tensor) for tensor in (x, *parameters))
    out = x
    for i, (weight, bias) in enumerate(zip(*_halves(aliases), strict=True)):
        out = F.linear(out if i == 0 else out.relu(), weight, bias)
    # Whoever froze one since then does not want its gradient any more.
    asked = [want and t.requires_grad for t, want in zip((x, *aliases), wanted, strict=True)]
    tensors = [tensor for tensor, ask in zip((x, *aliases), asked, strict=True) if ask]
    found = iter(torch.autograd.grad(out, tensors, grad, create_graph=True))
    return tuple(next(found) if ask else None for ask in asked)


def _halves(both: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    middle = len(both) // 2
    return both[:middle], both[middle:]
