"""Uniform and normal numbers, logarithms and angles with the same bits on every machine.

The functions of C libraries and of NumPy's vector units differ in the last bit from one version to the next. These use
nothing but additions, multiplications, divisions and square roots, which IEEE 754 rounds in one way only, each an
operation of its own, so that no compiler fuses two of them. They are accurate to a few units in the last place.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from flowzoo.data.keyed import keyed_bits

__all__ = ["cos_sin", "keyed_normals", "keyed_uniforms", "logarithm"]

Floats = NDArray[np.float64]

_LN2 = 0.6931471805599453
_SINE = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(10)]
_COSINE = [(-1.0) ** k / math.factorial(2 * k) for k in range(10)]
_ARTANH = [1.0 / (2 * k + 1) for k in range(13)]


def keyed_uniforms(key: tuple[int, ...], count: int) -> Floats:
    """Returns uniform numbers in [0, 1), multiples of 2^-53, as a function of the key alone; (count,)."""
    bits = keyed_bits(key, np.arange(count, dtype=np.uint64)) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def keyed_normals(key: tuple[int, ...], count: int, dims: int) -> Floats:
    """Returns standard normal numbers as a function of the key alone, by Box and Muller's transform.

    Args:
        key: Integers; every different key gives an unrelated stream.
        count: Number of rows.
        dims: Numbers in a row.

    Returns:
        float64 (count, dims).
    """
    columns: list[Floats] = []
    for pair in range((dims + 1) // 2):
        # One minus a uniform number of [0, 1) is in (0, 1], and exact.
        radius = np.sqrt(-2.0 * logarithm(1.0 - keyed_uniforms((*key, pair, 0), count)))
        cos, sin = cos_sin(keyed_uniforms((*key, pair, 1), count))
        columns += [radius * cos, radius * sin]
    return np.stack(columns[:dims], axis=1)


def logarithm(x: Floats) -> Floats:
    """Natural logarithm of positive numbers: 2 artanh((m - 1) / (m + 1)) + e ln 2, with x = m 2^e."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    exponent = exponent - small
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    return 2.0 * ratio * _polynomial(_ARTANH, ratio * ratio) + exponent * _LN2


def cos_sin(turns: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine of angles in turns: of 2 pi times ``turns``."""
    quarter = np.rint(turns * 4.0)
    angle = (turns - quarter * 0.25) * (2.0 * math.pi)
    square = angle * angle
    cos, sin = _polynomial(_COSINE, square), angle * _polynomial(_SINE, square)
    side = quarter.astype(np.int64) % 4
    first = np.where(side % 2 == 0, cos, sin)
    second = np.where(side % 2 == 0, sin, cos)
    return np.where((side == 1) | (side == 2), -first, first), np.where(side >= 2, -second, second)


def _polynomial(coefficients: list[float], x: Floats) -> Floats:
    """Sum of coefficient k times x^k, by Horner's rule."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result
