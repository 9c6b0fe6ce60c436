"""What autograd functions with a backward pass of their own have to look out for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from flowzoo.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")


def first_derivative(backward: Callable[P, T]) -> Callable[P, T]:
    """Marks the backward pass of an autograd function that cannot itself be differentiated.

    Torch's own ``once_differentiable`` gives constants in place of derivatives where no gradient that comes in wants
    one, as behind a sum; this refuses.
    """

    @wraps(backward)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.is_grad_enabled():
            raise InputError(
                "second derivatives of a flow were asked for (create_graph=True), which its fused operations do not "
                "have; take first derivatives and finite differences of them."
            )
        return backward(*args, **kwargs)

    return guarded


def is_batched(x: Tensor) -> bool:
    """Whether this is many tensors at once, as a gradient is in ``jacobian(vectorize=True)``."""
    functorch = torch._C._functorch
    return bool(functorch.is_batchedtensor(x) or functorch.is_legacy_batchedtensor(x))
