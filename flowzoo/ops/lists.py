"""Arithmetic on lists of tensors, in place: one call where torch has such a one, else a loop.

A model has hundreds of small tensors, and a call for each costs more than the arithmetic. torch's own optimizers use
these operations, whose names are private.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def lerp_(targets: Sequence[Tensor], sources: Sequence[Tensor], weight: float) -> None:
    """Moves each target towards its source by a share ``weight`` of their distance."""
    together = getattr(torch, "_foreach_lerp_", None)
    if together is not None:
        together(targets, sources, weight)
        return
    for target, source in zip(targets, sources, strict=True):
        target.lerp_(source, weight)


def copy_(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies each source to its target."""
    together = getattr(torch, "_foreach_copy_", None)
    if together is not None:
        together(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def scale_(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiplies each tensor by a scalar tensor."""
    together = getattr(torch, "_foreach_mul_", None)
    if together is not None:
        together(tensors, factor)
        return
    for tensor in tensors:
        tensor.mul_(factor)
