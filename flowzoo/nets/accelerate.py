"""The one place where a network can be computed by somebody else: by the engine, while it runs a flow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Accelerator = Callable[[nn.Module, Tensor], Tensor | None]
"""Computes a module's forward pass of a batch, or returns None if it does not."""


class _Current(threading.local):
    accelerator: Accelerator | None = None


_CURRENT = _Current()


@contextmanager
def accelerating(accelerator: Accelerator | None) -> Iterator[None]:
    """A context in which the networks of this thread are computed by ``accelerator`` where it can."""
    before = _CURRENT.accelerator
    _CURRENT.accelerator = accelerator
    try:
        yield
    finally:
        _CURRENT.accelerator = before


def accelerated(module: nn.Module, x: Tensor) -> Tensor | None:
    """The accelerator's result for this module, or None: then it computes itself."""
    if torch.compiler.is_compiling() or _CURRENT.accelerator is None:
        return None
    return _CURRENT.accelerator(module, x)
