"""Helpers of every custom backward: autocast switched off, and plain operations where it does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

P = ParamSpec("P")
T = TypeVar("T")

DEVICE_TYPES = ("cpu", "cuda")


@contextmanager
def without_autocast() -> Iterator[None]:
    """Switches autocast off for all devices, if it is on for any."""
    with ExitStack() as stack:
        for kind in DEVICE_TYPES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def in_forward_dtypes(backward: Callable[P, T]) -> Callable[P, T]:
    """Runs a backward pass in the dtypes of its forward pass, also where it is called inside autocast."""

    @wraps(backward)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        with without_autocast():
            return backward(*args, **kwargs)

    return guarded


def is_batched(x: Tensor) -> bool:
    """True if this is many tensors at once, as a gradient is in ``jacobian(vectorize=True)``."""
    functorch = getattr(torch._C, "_functorch", None)
    return functorch is not None and bool(
        functorch.is_batchedtensor(x) or functorch.is_legacy_batchedtensor(x)
    )


def transforms_active() -> bool:
    """True inside ``torch.func`` transforms and forward-mode differentiation, which no custom backward here knows."""
    functorch_active = getattr(torch._C, "_are_functorch_transforms_active", None)
    level = getattr(forward_ad, "_current_level", -1)
    return bool(level >= 0 or (functorch_active is not None and functorch_active()))


def is_traced() -> bool:
    """True while ``torch.jit.trace`` records what is computed."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def needs_plain(gradients: Sequence[Tensor | None]) -> bool:
    """True if a backward pass has to be plain: it is differentiated itself, or these are many gradients at once."""
    return torch.is_grad_enabled() or any(g is not None and is_batched(g) for g in gradients)


def plain_backward(
    plain: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of a function, by evaluating plain operations again and differentiating those.

    Args:
        plain: The function by torch's own operations.
        inputs: Its inputs.
        gradients: The gradients at its outputs.
        wanted: For each input whether its gradient is wanted.

    Returns:
        A gradient for each input, None where it is not wanted; with a graph of its own under ``create_graph``.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad(), without_autocast():
        # Other tensors to autograd: one may be there twice, or one input depend on another.
        aliases = [
            t.view_as(t) if create_graph else t.detach().requires_grad_(t.requires_grad) for t in inputs
        ]
        asked = [want and t.requires_grad for want, t in zip(wanted, aliases, strict=True)]
        outputs = plain(*aliases)
        pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
        targets = [t for t, ask in zip(aliases, asked, strict=True) if ask]
        found: Sequence[Tensor | None] = ()
        if pairs and targets:
            found = torch.autograd.grad(
                [o for o, _ in pairs],
                targets,
                [g for _, g in pairs],
                create_graph=create_graph,
                allow_unused=True,
            )
    remaining = iter(found if found else [None] * len(targets))
    return [next(remaining) if ask else None for ask in asked]


def apply(function: Any, *args: Any) -> Any:
    """``function.apply``, untyped in torch."""
    return function.apply(*args)
