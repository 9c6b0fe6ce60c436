"""Random integers as a pure function of a key, by integer arithmetic alone.

The order of the training images and the augmentation draw from here, so that they depend on nothing but the
key: not on the number of processes, not on where a run was resumed, not on the version of torch or NumPy.

The mixing function is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["keyed_bits", "keyed_integers", "keyed_permutation"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix_int(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keyed_bits(key: tuple[int, ...], counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns 64 random bits for every counter.

    Args:
        key: Integers; every different key gives an unrelated stream.
        counters: uint64, any shape.

    Returns:
        uint64, the counters' shape.
    """
    state = 0
    for part in key:
        state = _mix_int((state + _GOLDEN + (part & _MASK)) & _MASK)
    return _mix(_mix(counters * np.uint64(_GOLDEN) + np.uint64(state)) ^ np.uint64(state))


def keyed_integers(
    key: tuple[int, ...], counters: NDArray[np.uint64], low: int, high: int
) -> NDArray[np.int64]:
    """Returns one integer in [low, high) for every counter; ``high - low`` must be below 2^31."""
    bits = keyed_bits(key, counters) >> np.uint64(32)
    return ((bits * np.uint64(high - low)) >> np.uint64(32)).astype(np.int64) + low


def keyed_permutation(key: tuple[int, ...], size: int) -> NDArray[np.int64]:
    """Returns a permutation of ``range(size)``: the order in which 64 random bits per position sort."""
    return np.argsort(keyed_bits(key, np.arange(size, dtype=np.uint64)), kind="stable")
