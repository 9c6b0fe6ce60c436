"""What of an inverse is wanted: samples need no log-determinant, which some bijectors have to compute apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class _Current(threading.local):
    log_det = True


_CURRENT = _Current()


@contextmanager
def values_alone() -> Iterator[None]:
    """A context in which nobody looks at the log-determinants of this thread's inverses: they may be anything."""
    before = _CURRENT.log_det
    _CURRENT.log_det = False
    try:
        yield
    finally:
        _CURRENT.log_det = before


def log_det_wanted() -> bool:
    """Whether an inverse has to know its log-determinant.

    A bijector whose ``_inverse`` computes it apart from the values, as by another evaluation of a network, may return
    :func:`unknown_log_det` instead where it is not.
    """
    return torch.compiler.is_compiling() or _CURRENT.log_det


def unknown_log_det(z: Tensor) -> Tensor:
    """Zeros ``(B,)`` in place of a log-determinant that nobody wants."""
    return z.new_zeros(z.shape[0])
