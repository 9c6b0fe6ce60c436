"""ReLUs in bfloat16 on a CPU, by integer arithmetic: several times faster than torch's, which go through float32.

A bfloat16 read as a 16-bit integer has its sign, and among numbers of one sign the integers are ordered as the
magnitudes are. Negative ones are -128 (minus infinity) or less; between them and 0 there are only NaNs, which stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

MINUS_INFINITY = -128
"""bfloat16's minus infinity as a 16-bit integer."""


def relu_(x: Tensor) -> Tensor:
    """max(x, 0), in place, outside autograd."""
    if not _is_slow(x):
        return x.relu_()
    torch.threshold_(x.view(torch.int16), MINUS_INFINITY, 0)
    return x


def relu_backward_(grad: Tensor, rectified: Tensor) -> Tensor:
    """ReLU backward from the ReLU's output, in place over ``grad``."""
    if _is_slow(grad):
        bits = grad.view(torch.int16)
        torch.ops.aten.threshold_backward.grad_input(bits, rectified.view(torch.int16), 0, grad_input=bits)
        return grad
    torch.ops.aten.threshold_backward.grad_input(grad, rectified, 0, grad_input=grad)
    return grad


def _is_slow(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x.device.type == "cpu"
