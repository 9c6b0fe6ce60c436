"""Weights that a checkpoint holds as length and direction."""

from __future__ import annotations

from torch import Tensor

from flowzoo.convert.tensors import Tensors
from flowzoo.errors import InputError


def take_weight_norm(source: Tensors, at: str, *shape: int) -> tuple[Tensor, Tensor]:
    """Length ``(O,)`` and direction of a weight of this shape, whose value is length * direction / |direction|.

    Args:
        source: The checkpoint.
        at: What comes before ``weight_g`` and ``weight_v``, without the dot.
        *shape: Shape of the weight, outputs first.

    Raises:
        InputError: A tensor is missing or of another shape, or a direction is zero.
    """
    length = source.take(f"{at}.weight_g", shape[0], *(1,) * (len(shape) - 1)).flatten()
    direction = source.take(f"{at}.weight_v", *shape)
    if not bool(direction.flatten(1).norm(dim=1).all()):
        raise InputError(
            f"'{at}.weight_v' (layout {source.layout}) has a direction of length 0; the checkpoint is damaged."
        )
    return length, direction


def take_factors(source: Tensors, at: str, channels: int) -> Tensor:
    """The factor ``(C,)`` of each channel, where weight normalization was put on a vector of them."""
    length, direction = take_weight_norm(source, at, channels, 1, 1)
    return length * direction.flatten().sign()
