"""What of a map is wanted: samples and latents need no log-determinant, which some bijectors have to compute apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class _Current(threading.local):
    log_det = True
    round_trip = True


_CURRENT = _Current()


@contextmanager
def values_alone(*, drawn: bool = False) -> Iterator[None]:
    """A context in which nobody looks at the log-determinants of this thread's maps: they may be anything.

    Args:
        drawn: Whether the latents were drawn at random, so that nobody asks whether a value leads back to its own.
    """
    before = _CURRENT.log_det, _CURRENT.round_trip
    _CURRENT.log_det, _CURRENT.round_trip = False, not drawn
    try:
        yield
    finally:
        _CURRENT.log_det, _CURRENT.round_trip = before


def log_det_wanted() -> bool:
    """Whether a map, or its inverse, has to know its log-determinant.

    A bijector that computes it apart from the values, as by another evaluation of a network, may return
    :func:`unknown_log_det` instead where it is not wanted.
    """
    return torch.compiler.is_compiling() or _CURRENT.log_det


def round_trip_wanted() -> bool:
    """Whether the forward map has to lead from an inverse's values back to its latents.

    A drawn sample needs the model's distribution and no more. A bijector that solves an equation by a scheme of known
    error, and corrects what it found until the round trip closes, may leave the correction out where it is not wanted.
    """
    return torch.compiler.is_compiling() or _CURRENT.round_trip


def unknown_log_det(z: Tensor) -> Tensor:
    """Zeros ``(B,)`` in place of a log-determinant that nobody wants."""
    return z.new_zeros(z.shape[0])
