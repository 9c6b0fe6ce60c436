"""Monotone splines, elementwise: piecewise-linear, piecewise-quadratic and rational-quadratic.

Each maps an interval onto itself and is the identity outside of it. No value is picked by a mask: what lies outside is
clipped to the interval first and restored last, so that neither branch has a gradient that is not finite, and the same
operations run for every input, under ``torch.compile`` and ``torch.vmap`` as well. The equations of the inverses are
solved by the root that stays exact where the leading coefficient vanishes.

Sources: Mueller et al. 2019, *Neural Importance Sampling* (arXiv 1808.03856), section 4, for the first two; Durkan et
al. 2019, *Neural Spline Flows* (arXiv 1906.04032), section 3.1, for the third.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.errors import ConfigError

__all__ = ["LinearSpline", "QuadraticSpline", "RationalQuadraticSpline", "Spline"]

SMALLEST_DISCRIMINANT = 1e-12
"""Below this a discriminant is a rounding error; the true ones are squares of slopes, at least ``minimum`` squared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spline(ABC):
    """An increasing map of [low, high] onto itself, made of pieces; the identity outside.

    Attributes:
        bins: K, the number of pieces.
        low: Left end of the interval.
        high: Right end.
        linear_tails: Whether the slope at both ends is 1, that of the identity outside, so that the map has a
            continuous derivative on the whole line. Otherwise the slopes at the ends are free: for data that lie in
            the interval. A piecewise-linear spline has a derivative with jumps in either case.
        minimum: Smallest width, height and slope of a piece, in units of the interval.
    """

    bins: int
    low: float = 0.0
    high: float = 1.0
    linear_tails: bool = False
    minimum: float = 1e-3

    def __post_init__(self) -> None:
        """Refuses what is no spline.

        Raises:
            ConfigError: Fewer than 2 bins, an empty interval, or pieces that cannot all have the least size.
        """
        if self.bins < 2 or not self.low < self.high or not 0 < self.minimum * self.bins < 1:
            raise ConfigError(
                f"{type(self).__name__} of {self.bins} bins of at least {self.minimum} in [{self.low}, {self.high}]: "
                "expected 2 bins or more, low below high, and bins * minimum between 0 and 1."
            )

    @property
    @abstractmethod
    def parameters(self) -> int:
        """P, the raw parameters of one spline; all zero is the identity."""

    @abstractmethod
    def _unit(self, t: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The map of [0, 1] onto itself, and the logarithm of its slope."""

    @abstractmethod
    def _unit_inverse(self, t: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`_unit`, and the logarithm of the map's slope there."""

    def __call__(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x, with a spline for each value.

        Args:
            x: Values of any shape.
            raw: The shape of x and a last dimension of P, or ``(P,)`` for one spline of all.

        Returns:
            y and log dy/dx, each the shape of x.
        """
        inside, t = self._enter(x)
        y, log_slope = self._unit(t, raw)
        return self._leave(x, y, inside), torch.where(inside, log_slope, 0.0)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Maps y back.

        Args:
            y: Values of any shape.
            raw: The shape of y and a last dimension of P, or ``(P,)``.

        Returns:
            x and log dx/dy, each the shape of y.
        """
        inside, t = self._enter(y)
        found, log_slope = self._unit_inverse(t, raw)
        return self._leave(y, found.clamp(0, 1), inside), -torch.where(inside, log_slope, 0.0)

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Which values are in the interval, and their place in units of it, those outside clipped to an end."""
        inside = (x >= self.low) & (x <= self.high)
        return inside, (x.clamp(self.low, self.high) - self.low) / (self.high - self.low)

    def _leave(self, x: Tensor, t: Tensor, inside: Tensor) -> Tensor:
        # Rounding must not carry a value over an end, beyond which a uniform base has no density.
        inner = (self.low + (self.high - self.low) * t).clamp(self.low, self.high)
        return torch.where(inside, inner, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSpline(Spline):
    """K pieces of equal width and slope K p_k: the distribution function of a histogram (NIS, equations 8 to 10)."""

    @property
    def parameters(self) -> int:
        """K logits of the probabilities."""
        return self.bins

    def _unit(self, t: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        heights, knots = _shares(raw, self.minimum)
        index = (t.detach() * self.bins).floor().long().clamp(0, self.bins - 1).unsqueeze(-1)
        height = _at(heights, index)
        # Not index / bins, which is a float32 whatever t is.
        y = _at(knots, index) + (t * self.bins - index.squeeze(-1)) * height
        return y, (height * self.bins).log()

    def _unit_inverse(self, t: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        heights, knots = _shares(raw, self.minimum)
        index = _bin_of(t, knots)
        height = _at(heights, index)
        place = (t - _at(knots, index)) / height
        return (index.squeeze(-1) + place) / self.bins, (height * self.bins).log()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticSpline(Spline):
    """K pieces of free width, the slope linear in each and continuous (NIS, equations 11 to 16).

    y = c_k + v_k w_k a + (v_{k+1} - v_k) w_k a^2 / 2 for x = x_k + a w_k, with slopes v at the knots, whose trapezoids
    have area 1. With linear tails the slopes of both ends are 1, and the inner ones are scaled to what is left.
    """

    @property
    def parameters(self) -> int:
        """K widths, and the slopes at the K + 1 knots, or at the K - 1 inner ones."""
        return 2 * self.bins + (-1 if self.linear_tails else 1)

    def _pieces(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Widths and their knots, slopes at the knots, and y at them."""
        widths, knots = _shares(raw[..., : self.bins], self.minimum)
        logits = raw[..., self.bins :]
        slopes = _softmax(logits) * logits.shape[-1] + self.minimum
        if self.linear_tails:
            ends = (widths[..., :1] + widths[..., -1:]) / 2
            around = (widths[..., 1:] + widths[..., :-1]) / 2
            slopes = slopes * (1 - ends) / (slopes * around).sum(dim=-1, keepdim=True)
            slopes = F.pad(slopes, (1, 1), value=1.0)
        areas = (slopes[..., 1:] + slopes[..., :-1]) / 2 * widths
        total = areas.sum(dim=-1, keepdim=True)
        return widths, knots, slopes / total, _knots(areas / total)

    def _unit(self, t: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        widths, knots, slopes, values = self._pieces(raw)
        index = _bin_of(t, knots)
        width, left, right = _at(widths, index), _at(slopes, index), _at(slopes, index + 1)
        a = ((t - _at(knots, index)) / width).clamp(0, 1)
        y = _at(values, index) + width * a * (left + (right - left) * a / 2)
        return y, torch.lerp(left, right, a).log()

    def _unit_inverse(self, t: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """A = 2 d / (v_k + sqrt(v_k^2 + 2 (v_{k+1} - v_k) d)), d = (y - c_k) / w_k: exact for equal slopes as well."""
        widths, knots, slopes, values = self._pieces(raw)
        index = _bin_of(t, values)
        width, left, right = _at(widths, index), _at(slopes, index), _at(slopes, index + 1)
        d = (t - _at(values, index)).clamp_min(0) / width
        discriminant = (left.square() + 2 * (right - left) * d).clamp_min(SMALLEST_DISCRIMINANT)
        a = (2 * d / (left + discriminant.sqrt())).clamp(0, 1)
        return _at(knots, index) + a * width, torch.lerp(left, right, a).log()


@dataclass(frozen=True, slots=True, kw_only=True)
class RationalQuadraticSpline(Spline):
    """K pieces of free width, height and slopes at the knots, each a ratio of quadratics (NSF, equations 4 to 8).

    In a piece of width w and height h, with s = h / w, slopes d_0 and d_1 at its ends and a the place in it,

    y = y_k + h (s a^2 + d_0 a (1 - a)) / (s + (d_0 + d_1 - 2 s) a (1 - a)).
    """

    @property
    def parameters(self) -> int:
        """K widths, K heights, and the slopes at the K + 1 knots, or at the K - 1 inner ones."""
        return 3 * self.bins + (-1 if self.linear_tails else 1)

    def _pieces(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Widths and their knots, heights and theirs, slopes at the knots."""
        widths, knots = _shares(raw[..., : self.bins], self.minimum)
        heights, values = _shares(raw[..., self.bins : 2 * self.bins], self.minimum)
        # A slope of 1 for a parameter of 0.
        offset = math.log(math.expm1(1 - self.minimum))
        slopes = self.minimum + F.softplus(raw[..., 2 * self.bins :] + offset)
        if self.linear_tails:
            slopes = F.pad(slopes, (1, 1), value=1.0)
        return widths, knots, heights, values, slopes

    def _unit(self, t: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        widths, knots, heights, values, slopes = self._pieces(raw)
        index = _bin_of(t, knots)
        width, height = _at(widths, index), _at(heights, index)
        s, d0, d1 = height / width, _at(slopes, index), _at(slopes, index + 1)
        a = ((t - _at(knots, index)) / width).clamp(0, 1)
        ab = a * (1 - a)
        denominator = s + (d0 + d1 - 2 * s) * ab
        y = _at(values, index) + height * (s * a.square() + d0 * ab) / denominator
        return y, self._log_slope(a, s, d0, d1, denominator)

    @staticmethod
    def _log_slope(a: Tensor, s: Tensor, d0: Tensor, d1: Tensor, denominator: Tensor) -> Tensor:
        """Equation 5."""
        numerator = d1 * a.square() + 2 * s * a * (1 - a) + d0 * (1 - a).square()
        return (s.square() * numerator / denominator.square()).log()

    def _unit_inverse(self, t: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Equations 6 to 8 divided by the height, so that the discriminant has a scale: a = -2 c / (b + sqrt(D))."""
        widths, knots, heights, values, slopes = self._pieces(raw)
        index = _bin_of(t, values)
        width, height = _at(widths, index), _at(heights, index)
        s, d0, d1 = height / width, _at(slopes, index), _at(slopes, index + 1)
        eta = ((t - _at(values, index)) / height).clamp(0, 1)
        bend = eta * (d0 + d1 - 2 * s)
        a, b, c = s - d0 + bend, d0 - bend, -s * eta
        discriminant = (b.square() - 4 * a * c).clamp_min(SMALLEST_DISCRIMINANT)
        place = (-2 * c / (b + discriminant.sqrt())).clamp(0, 1)
        denominator = s + (d0 + d1 - 2 * s) * place * (1 - place)
        return _at(knots, index) + place * width, self._log_slope(place, s, d0, d1, denominator)


def _shares(logits: Tensor, minimum: float) -> tuple[Tensor, Tensor]:
    """Shares of 1, each at least ``minimum``, and the K + 1 knots between them."""
    shares = minimum + (1 - minimum * logits.shape[-1]) * _softmax(logits)
    return shares, _knots(shares)


def _softmax(logits: Tensor) -> Tensor:
    """Softmax of the last dimension; over few bins, much faster on a CPU than torch's, which goes row by row."""
    powers = (logits - logits.detach().amax(dim=-1, keepdim=True)).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def _knots(shares: Tensor) -> Tensor:
    """0, the sums of the first shares, and exactly 1: ``(..., K)`` to ``(..., K + 1)``."""
    inner = shares[..., :-1].cumsum(dim=-1)
    return torch.cat((torch.zeros_like(inner[..., :1]), inner, torch.ones_like(inner[..., :1])), dim=-1)


def _bin_of(t: Tensor, knots: Tensor) -> Tensor:
    """The bin ``(..., 1)`` that holds each value, by how many inner knots are not above it."""
    return (t.detach().unsqueeze(-1) >= knots[..., 1:-1].detach()).sum(dim=-1, keepdim=True)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """The values ``(..., K)`` or ``(K,)`` of the bins ``(..., 1)``, without the last dimension."""
    if values.ndim == 1 < index.ndim:
        return values[index.squeeze(-1)]
    return values.gather(-1, index).squeeze(-1)
