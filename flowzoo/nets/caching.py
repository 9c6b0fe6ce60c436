"""Keeping what a module makes of its parameters alone, while nothing can change them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class CachesInEval(nn.Module):
    """Base of modules that fold or invert their parameters: in evaluation the result is kept.

    Kept means: in eval mode, without gradients, without autocast, and while every parameter is the same tensor at
    the same address with the same version. Fused optimizers write without counting versions, so a forward pass with
    gradients forgets what was kept, and a parameter that holds a gradient keeps nothing new. Writing to
    ``parameter.data`` in eval mode cannot be seen; write to the parameter under ``torch.no_grad()`` instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept = _Kept()

    def cached(self, key: Hashable, parameters: tuple[Tensor | None, ...], compute: Callable[[], T]) -> T:
        """What ``compute`` returns, or returned before for this key and these parameters."""
        if self.training or torch.is_grad_enabled():
            self._kept.clear()
            return compute()
        stamps = _stamps(parameters)
        if stamps is None:
            return compute()
        entry = self._kept.get(key)
        if entry is None or entry[1] != stamps:
            # The parameters are kept as well, so that no other tensor can come to have their identity.
            entry = (parameters, stamps, compute())
            self._kept[key] = entry
        result: T = entry[2]
        return result

    def keeps(self, parameters: tuple[Tensor | None, ...]) -> bool:
        """Whether :meth:`cached` would keep a result now; it forgets what it has where gradients are recorded."""
        if self.training or torch.is_grad_enabled():
            self._kept.clear()
            return False
        return _stamps(parameters) is not None

    def train(self, mode: bool = True) -> Self:
        """Sets the mode and forgets what was kept."""
        self._kept.clear()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._kept.clear()
        moved: Self = super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return moved


class _Kept(dict[Hashable, tuple[Any, list[int], Any]]):
    """The entries of one module; copies and pickles of the module begin without any."""

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()


def _stamps(parameters: tuple[Tensor | None, ...]) -> list[int] | None:
    """What changes when a parameter does; None if it may change unseen."""
    stamps: list[int] = []
    for p in parameters:
        if p is not None:
            if p.grad is not None or p.is_inference():
                return None
            stamps += (id(p), p._version, p.data_ptr())
    return None if torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu") else stamps
