"""Mixtures of discretised logistics over a window of integers, in integer arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.codec.tables import (
    ARGUMENT_BITS,
    FRACTION_BITS,
    LOGISTIC_BITS,
    STEP_BITS,
    exponentials,
    log_of_power,
    logistic,
)

WEIGHT_BITS = 16
"""The weights of a mixture are multiples of 2^-16."""

UNIFORM_BITS = 16
"""A share of 2^-16 of every mixture is uniform over the window."""

PROBABILITY_BITS = 20
"""Probabilities of a binary decision are multiples of 2^-20."""

LEAST_LOG_SCALE, GREATEST_LOG_SCALE = -4, 6

_DEEPEST_LOGIT = 16
_INVERSE_SCALE_BITS = 20
_GREATEST_MEAN = 16 << FRACTION_BITS


class IntegerMixture:
    """The distribution of integers 0 <= k < W, each with the mass of a mixture of logistics in [k, k + 1).

    The tails belong to the first and the last integer. Every quantity is an int64, so that the decisions of a coder
    are the same everywhere.

    Attributes:
        window_bits: log2 W.
        shape: Of the symbols, ``(B, C, H, W)``.
    """

    def __init__(self, raw: Tensor, mixtures: int, window_bits: int, batch: int) -> None:
        """Reads the parameters.

        Args:
            raw: int64 ``(B or 1, 3 K C, H, W)`` in units of 2^-16: K C logits; means in quarters of W; log-scales over
                W / 8.
            mixtures: K.
            window_bits: log2 W, 1 to 8.
            batch: B.
        """
        items, channels, height, width = raw.shape
        self.window_bits = window_bits
        self.shape = (batch, channels // (3 * mixtures), height, width)
        logits, means, log_scales = raw.view(items, 3, mixtures, -1, height, width).permute(1, 2, 0, 3, 4, 5)
        self._means = means.clamp(-_GREATEST_MEAN, _GREATEST_MEAN)
        self._weights = _weights(logits)
        self._inverse_scales = _inverse_scales(log_scales, window_bits)

    @property
    def planes(self) -> int:
        """Binary decisions that a symbol takes: halvings of the window."""
        return self.window_bits

    def start(self) -> Interval:
        """The whole window, for every symbol."""
        low = torch.zeros(self.shape, dtype=torch.int64)
        everything = (self._weights.sum(0) << LOGISTIC_BITS).expand(self.shape)
        return Interval(self, low, 2**self.window_bits, torch.zeros_like(low), everything)

    def below(self, edge: Tensor) -> Tensor:
        """Mass of the integers below ``edge``, without the uniform share, in units of 2^-40."""
        position = (edge << (FRACTION_BITS + 2 - self.window_bits)) - self._means
        t = position * self._inverse_scales >> (_INVERSE_SCALE_BITS + 18 - ARGUMENT_BITS - self.window_bits)
        return (self._weights * logistic(t)).sum(0)

    def uniform(self, width: int) -> int:
        """Uniform mass of ``width`` integers, in units of 2^-40."""
        return width << (WEIGHT_BITS + LOGISTIC_BITS - UNIFORM_BITS - self.window_bits)


class Interval:
    """For every symbol the integers that it may still be: ``width`` of them from ``low`` on."""

    def __init__(self, owner: IntegerMixture, low: Tensor, width: int, below: Tensor, until: Tensor) -> None:
        """Keeps the mass below the interval's two ends beside it."""
        self.owner = owner
        self.low = low
        self.width = width
        self._below = below
        self._until = until
        self._middle = owner.below(low + width // 2)

    def upper_half(self) -> Tensor:
        """Probability that a symbol is in the upper half, in units of 2^-20, at least 1 and at most 2^20 - 1."""
        half = self.owner.uniform(self.width // 2)
        part = (self._until - self._middle).clamp(min=0) + half
        whole = (self._middle - self._below).clamp(min=0) + half + part
        found = torch.div(part << PROBABILITY_BITS, whole, rounding_mode="floor")
        return found.clamp(1, 2**PROBABILITY_BITS - 1)

    def choose(self, upper: Tensor) -> Interval | Tensor:
        """The half that ``upper`` (bool) names for each symbol; the symbols themselves once nothing is left open."""
        half = self.width // 2
        low = torch.where(upper, self.low + half, self.low)
        if half == 1:
            return low
        below = torch.where(upper, self._middle, self._below)
        until = torch.where(upper, self._until, self._middle)
        return Interval(self.owner, low, half, below, until)


def _weights(logits: Tensor) -> Tensor:
    """Softmax of logits ``(K, ...)`` in units of 2^-16."""
    depth = (logits.amax(0) - logits) >> (FRACTION_BITS - STEP_BITS)
    table = exponentials(0, _DEEPEST_LOGIT, 24)
    parts = table[depth.clamp(0, len(table) - 1)]
    return torch.div(parts << WEIGHT_BITS, parts.sum(0), rounding_mode="floor")


def _inverse_scales(log_scales: Tensor, window_bits: int) -> Tensor:
    """1 / s in units of 2^-20 from log-scales over W / 8."""
    absolute = log_scales + log_of_power(window_bits - 3)
    step = (absolute - (LEAST_LOG_SCALE << FRACTION_BITS)) >> (FRACTION_BITS - STEP_BITS)
    table = exponentials(LEAST_LOG_SCALE, GREATEST_LOG_SCALE, _INVERSE_SCALE_BITS)
    return table[step.clamp(0, len(table) - 1)]
