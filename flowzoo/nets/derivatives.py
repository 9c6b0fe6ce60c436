"""What autograd functions with a backward pass of their own have to look out for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from flowzoo.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")


def first_derivative(backward: Callable[P, T]) -> Callable[P, T]:
    """Marks the backward pass of an autograd function that cannot itself be differentiated.

    It runs in the dtypes of its forward pass (:func:`in_forward_dtypes`).
    Torch's own ``once_differentiable`` gives constants in place of derivatives where no gradient that comes in wants
    one, as behind a sum; this refuses.
    """
    exact = in_forward_dtypes(backward)

    @wraps(backward)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.is_grad_enabled():
            raise InputError(
                "second derivatives of a flow were asked for (create_graph=True), which its fused operations do not "
                "have; take first derivatives and finite differences of them."
            )
        return exact(*args, **kwargs)

    return guarded


def in_forward_dtypes(backward: Callable[P, T]) -> Callable[P, T]:
    """Has a backward pass run in the dtypes of its forward pass, also where it is called inside of autocast."""

    @wraps(backward)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        narrowed = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        if not narrowed:
            return backward(*args, **kwargs)
        with ExitStack() as stack:
            for kind in narrowed:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return backward(*args, **kwargs)

    return guarded


def is_batched(x: Tensor) -> bool:
    """Whether this is many tensors at once, as a gradient is in ``jacobian(vectorize=True)``."""
    functorch = torch._C._functorch
    return bool(functorch.is_batchedtensor(x) or functorch.is_legacy_batchedtensor(x))


def is_transformed() -> bool:
    """Whether derivatives are taken as no autograd function here can: by ``torch.func``, or forwards."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
