"""Functions of integers by table: exponentials and the logistic, the same on every machine.

The entries come from :mod:`decimal`, whose exponential is correctly rounded by specification; a C library's is not.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache

import torch
from torch import Tensor

FRACTION_BITS = 16
"""Fraction bits of activations, and of the parameters that a network gives."""

STEP_BITS = 8
"""Exponentials are tabulated at steps of 2^-8."""

LOGISTIC_STEP_BITS = 7
"""The logistic is tabulated at steps of 2^-7, and linear in between."""

LOGISTIC_LIMIT = 16
"""Beyond +-16 the logistic is constant."""

LOGISTIC_BITS = 24
"""The logistic's values are multiples of 2^-24."""

ARGUMENT_BITS = 20
"""Fraction bits of the logistic's argument."""

_CONTEXT = Context(prec=30, rounding=ROUND_HALF_EVEN)


def _rounded(value: Decimal) -> int:
    return int(value.to_integral_value(rounding=ROUND_HALF_EVEN))


@cache
def exponentials(first: int, last: int, bits: int) -> Tensor:
    """exp(-x) for x = first, first + 2^-8, ..., last, as multiples of 2^-bits, int64."""
    count = (last - first) * 2**STEP_BITS + 1
    scale = Decimal(2**bits)
    step = Decimal(2**STEP_BITS)
    values = [
        _rounded(_CONTEXT.multiply(_CONTEXT.exp(-(first + Decimal(i) / step)), scale)) for i in range(count)
    ]
    return torch.tensor(values, dtype=torch.int64)


@cache
def _logistics() -> Tensor:
    step = Decimal(2**LOGISTIC_STEP_BITS)
    one, scale = Decimal(1), Decimal(2**LOGISTIC_BITS)
    values = [
        _rounded(_CONTEXT.divide(scale, one + _CONTEXT.exp(-(Decimal(i) / step))))
        for i in range(LOGISTIC_LIMIT * 2**LOGISTIC_STEP_BITS + 1)
    ]
    return torch.tensor([*values, values[-1]], dtype=torch.int64)


def logistic(t: Tensor) -> Tensor:
    """The logistic function of t / 2^20, as multiples of 2^-24, int64; never falls where t grows."""
    table = _logistics()
    size = t.abs().clamp(max=LOGISTIC_LIMIT << ARGUMENT_BITS)
    shift = ARGUMENT_BITS - LOGISTIC_STEP_BITS
    index = size >> shift
    low = table[index]
    rise = (table[index + 1] - low) * (size & ((1 << shift) - 1)) >> shift
    value = low + rise
    return torch.where(t < 0, 2**LOGISTIC_BITS - value, value)


@cache
def log_of_power(exponent: int) -> int:
    """log(2^exponent) as a multiple of 2^-16, rounded."""
    return _rounded(_CONTEXT.multiply(_CONTEXT.ln(Decimal(2)), Decimal(exponent * 2**FRACTION_BITS)))
