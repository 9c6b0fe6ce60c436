"""Linear layers with ReLUs between them as one operation on a CPU.

Torch's linear layer fills its output with the bias and then adds a product to it; adding the bias to the product, and
overwriting gradients after a ReLU by those before it, spares passes over the activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.ops.autograd import apply, in_forward_dtypes, needs_plain, plain_backward
from flowzoo.ops.products import summed
from flowzoo.ops.relu import relu_backward_


def linears(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """``(B, I)`` to ``(B, O)``, by weights ``(O_i, I_i)`` and biases ``(O_i,)``."""
    if not torch.is_grad_enabled():
        return _multiply(x, weights, biases)
    out: Tensor = apply(_Linears, x, *weights, *biases)
    return out


def _multiply(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: list[Tensor] | None = None
) -> Tensor:
    """The product, outside autograd; the input of each layer is added to ``inputs``."""
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = x.relu_() if i > 0 else x
        if inputs is not None:
            inputs.append(x)
        x = torch.mm(x, weight.t()).add_(bias)
    return x


def _plain(x: Tensor, *parameters: Tensor) -> tuple[Tensor]:
    for i, (weight, bias) in enumerate(zip(*_halves(parameters), strict=True)):
        x = F.linear(x if i == 0 else x.relu(), weight, bias)
    return (x,)


class _Linears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        inputs: list[Tensor] = []
        out = _multiply(x, *_halves(parameters), inputs)
        ctx.save_for_backward(*parameters, *inputs)
        return out

    @staticmethod
    @in_forward_dtypes
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        count = len(saved) // 3
        parameters, inputs = saved[: 2 * count], saved[2 * count :]
        if needs_plain((grad,)):
            return tuple(plain_backward(_plain, (inputs[0], *parameters), (grad,), ctx.needs_input_grad))
        wanted, for_weights, for_biases = ctx.needs_input_grad[0], *_halves(ctx.needs_input_grad[1:])
        weights, _ = _halves(parameters)
        grad_weights: list[Tensor | None] = [None] * count
        grad_biases: list[Tensor | None] = [None] * count
        for i in reversed(range(count)):
            grad_weights[i] = grad.t() @ inputs[i] if for_weights[i] else None
            grad_biases[i] = summed(grad) if for_biases[i] else None
            if i > 0:
                grad = relu_backward_(grad @ weights[i], inputs[i])
        return grad @ weights[0] if wanted else None, *grad_weights, *grad_biases


def _halves(both: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    middle = len(both) // 2
    return both[:middle], both[middle:]
