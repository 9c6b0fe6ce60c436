"""The densities of the sets ``points:NAME``: each can be drawn from, and evaluated to float64 precision.

Draws use the operations of :mod:`flowzoo.data.reproducible` alone, so that a data set has the same bits on every
machine. Log densities are differentiable and in nats.

The forms follow the toy problems of the literature, so that a picture of
one looks as it does there; where those have no density in closed form (moons and spirals whose noise is not normal,
the pinwheel), the catalogue says what is different here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.reproducible import cos_sin, keyed_normals, keyed_uniforms
from flowzoo.errors import InputError

__all__ = ["DENSITIES", "Checkerboard", "Curve", "Mixture", "NoisyCurves", "PointDensity", "Twisted"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_AT_A_TIME = 1 << 20
"""Terms of sums over nodes that are in memory at once."""


class PointDensity(ABC):
    """A density of points in few dimensions.

    Args:
        box: The least and greatest coordinate worth drawing, for each dimension.
    """

    def __init__(self, box: Sequence[tuple[float, float]]) -> None:
        self.box = tuple(box)

    @property
    def dims(self) -> int:
        """Numbers in a point."""
        return len(self.box)

    @abstractmethod
    def draw(self, key: tuple[int, ...], count: int) -> tuple[Floats, Integers]:
        """Draws points.

        Args:
            key: Integers; the points are a function of them alone.
            count: Number of points.

        Returns:
            The points, float64 (count, D), and the part of the figure that each belongs to, int64 (count,).
        """

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of points.

        Args:
            x: Real numbers (B, D).

        Returns:
            float64 (B,), nats; minus infinity where no point can be.

        Raises:
            InputError: if ``x`` is of another shape.
        """
        if x.ndim != 2 or x.shape[1] != self.dims:
            raise InputError(f"Points must be of shape (B, {self.dims}), found {tuple(x.shape)}.")
        return self._log_prob(x.double())

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor:
        """Log density of points that are known to have the right shape; float64."""


def _choice(key: tuple[int, ...], count: int, weights: Floats) -> Integers:
    """Draws indices with probabilities ``weights``."""
    bounds = np.cumsum(weights)[:-1]
    return np.searchsorted(bounds, keyed_uniforms(key, count), side="right").astype(np.int64)


class Mixture(PointDensity):
    """Normal distributions of any covariance, mixed: x = mean_k + A_k z with z standard normal.

    Args:
        weights: Probabilities of the K components.
        means: (K, D).
        factors: A, (K, D, D).
        box: As for :class:`PointDensity`.
    """

    def __init__(
        self, weights: Sequence[float], means: Floats, factors: Floats, box: Sequence[tuple[float, float]]
    ) -> None:
        super().__init__(box)
        self.weights, self.means, self.factors = np.asarray(weights, dtype=np.float64), means, factors

    def draw(self, key: tuple[int, ...], count: int) -> tuple[Floats, Integers]:
        """Draws points and their components."""
        component = _choice((*key, 0), count, self.weights)
        noise = keyed_normals((*key, 1), count, self.dims)
        points = self.means[component]
        for column in range(self.dims):  # no matrix product: libraries add up in orders of their own
            points = points + self.factors[component][:, :, column] * noise[:, column : column + 1]
        return points, component

    def _log_prob(self, x: Tensor) -> Tensor:
        means, inverse = torch.from_numpy(self.means), torch.from_numpy(np.linalg.inv(self.factors))
        z = torch.einsum("kij,bkj->bki", inverse.to(x.device), x[:, None] - means.to(x.device))
        constants = np.log(self.weights) - np.log(np.abs(np.linalg.det(self.factors)))
        terms = torch.from_numpy(constants).to(x.device) - 0.5 * z.square().sum(-1)
        return torch.logsumexp(terms, 1) - 0.5 * self.dims * math.log(2 * math.pi)


def mixture_1d(
    weights: Sequence[float], means: Sequence[float], scales: Sequence[float], box: tuple[float, float]
) -> Mixture:
    """A mixture of normal distributions on the line."""
    return Mixture(weights, np.array(means)[:, None], np.array(scales)[:, None, None], [box])


class Twisted(PointDensity):
    """Another density in the plane, each point turned about the origin by an angle in proportion to its radius.

    A twist preserves areas, so that p(x) = p_plain(the point turned back), and the entropy is the plain one's.

    Args:
        plain: The density before the twist.
        turns: Turns for each unit of radius.
        box: As for :class:`PointDensity`.
    """

    def __init__(self, plain: PointDensity, turns: float, box: Sequence[tuple[float, float]]) -> None:
        super().__init__(box)
        self.plain, self.turns = plain, turns

    def draw(self, key: tuple[int, ...], count: int) -> tuple[Floats, Integers]:
        """Draws plain points and twists them."""
        plain, component = self.plain.draw(key, count)
        x, y = plain[:, 0], plain[:, 1]
        cos, sin = cos_sin(np.sqrt(x * x + y * y) * self.turns)
        return np.stack([cos * x - sin * y, sin * x + cos * y], axis=1), component

    def _log_prob(self, x: Tensor) -> Tensor:
        angle = x.square().sum(1).add(1e-300).sqrt() * (2 * math.pi * self.turns)
        cos, sin = angle.cos(), angle.sin()
        back = torch.stack([cos * x[:, 0] + sin * x[:, 1], cos * x[:, 1] - sin * x[:, 0]], dim=1)
        return self.plain.log_prob(back)


@dataclass(frozen=True)
class Curve:
    """A curve in the plane, and how points are spread along it.

    Attributes:
        at: From parameters in [0, 1] to the two coordinates.
        power: The parameter's density is ``power`` times its ``power - 1``-th power: 1 is uniform, 2 the square root
            of a uniform number.
        panels: Intervals for integration along the curve, each of 16 Gauss-Legendre nodes.
    """

    at: Callable[[Floats], tuple[Floats, Floats]]
    power: int = 1
    panels: int = 16

    def draw(self, uniform: Floats) -> Floats:
        """Points of the curve, (N, 2), of uniform numbers."""
        return np.stack(self.at(uniform if self.power == 1 else np.sqrt(uniform)), axis=1)

    def nodes(self) -> tuple[Floats, Floats]:
        """Points of the curve, (M, 2), and their weights, (M,), which add up to one."""
        places, weights = np.polynomial.legendre.leggauss(16)
        starts = np.arange(self.panels)[:, None]
        parameters = ((starts + 0.5 * (places + 1)) / self.panels).reshape(-1)
        weights = np.tile(weights / (2 * self.panels), self.panels)
        return np.stack(self.at(parameters), axis=1), weights * self.power * parameters ** (self.power - 1)


class NoisyCurves(PointDensity):
    """Points on curves, with equal shares, plus isotropic normal noise.

    p(x) is the integral over the curves of the noise's density, which the nodes of :class:`Curve` add up. The integrand
    is smooth, so that the sum is exact to rounding.

    Args:
        curves: The curves.
        sigma: Standard deviation of the noise.
        box: As for :class:`PointDensity`.
    """

    def __init__(self, curves: Sequence[Curve], sigma: float, box: Sequence[tuple[float, float]]) -> None:
        super().__init__(box)
        self.curves, self.sigma = tuple(curves), sigma
        nodes = [curve.nodes() for curve in self.curves]
        self._nodes = np.concatenate([points for points, _ in nodes])
        self._weights = np.concatenate([weights for _, weights in nodes]) / len(nodes)

    def draw(self, key: tuple[int, ...], count: int) -> tuple[Floats, Integers]:
        """Draws points and the numbers of their curves."""
        shares = np.full(len(self.curves), 1 / len(self.curves))
        which = _choice((*key, 0), count, shares)
        uniform = keyed_uniforms((*key, 1), count)
        points = np.empty((count, 2))
        for number, curve in enumerate(self.curves):
            points[which == number] = curve.draw(uniform[which == number])
        return points + self.sigma * keyed_normals((*key, 2), count, 2), which

    def _log_prob(self, x: Tensor) -> Tensor:
        nodes = torch.from_numpy(self._nodes).to(x.device) / self.sigma
        # |x - c|^2 is taken apart, so that most of the work is one product of matrices.
        offsets = torch.from_numpy(np.log(self._weights)).to(x.device) - 0.5 * nodes.square().sum(1)
        constant = math.log(2 * math.pi * self.sigma**2)
        parts = [
            torch.logsumexp(torch.addmm(offsets, part, nodes.T), 1) - 0.5 * part.square().sum(1) - constant
            for part in (x / self.sigma).split(max(1, _AT_A_TIME // len(nodes)))
        ]
        return torch.cat(parts)


class Checkerboard(PointDensity):
    """Uniform on every other square of a board of ``2 half`` by ``2 half`` squares around the origin.

    Args:
        half: Squares from the origin to the edge; even.
        side: Side of a square.
    """

    def __init__(self, half: int, side: float) -> None:
        super().__init__([(-half * side, half * side)] * 2)
        self.half, self.side = half, side

    def draw(self, key: tuple[int, ...], count: int) -> tuple[Floats, Integers]:
        """Draws points; all belong to one part."""
        first, second = keyed_uniforms((*key, 0), count), keyed_uniforms((*key, 1), count)
        across = (first * 2 - 1) * self.half
        # Half as many squares in a column as there are rows; odd columns begin one square higher.
        up = second * self.half
        row = np.floor(up)
        upward = row + (up - row) + row + np.floor(across) % 2 - self.half
        return np.stack([across, upward], axis=1) * self.side, np.zeros(count, dtype=np.int64)

    def _log_prob(self, x: Tensor) -> Tensor:
        scaled = x / self.side
        # The edges belong to the squares, so that rounding takes no point out of them.
        corners = torch.cartesian_prod(*[torch.arange(-self.half, self.half, device=x.device)] * 2)
        filled = corners[corners.sum(1) % 2 == 0]
        inside = ((scaled[:, None] >= filled) & (scaled[:, None] <= filled + 1)).all(-1).any(1)
        area = 2 * self.half**2 * self.side**2
        return torch.where(inside, -math.log(area), -math.inf).to(x.dtype) + 0 * x.sum(1)


def _circle(radius: float, *, turns: float = 1.0, start: float = 0.0, panels: int = 16) -> Curve:
    def at(parameter: Floats) -> tuple[Floats, Floats]:
        cos, sin = cos_sin(parameter * turns + start)
        return cos * radius, sin * radius

    return Curve(at, panels=panels)


def _moved(curve: Curve, right: float, up: float, *, flatten: float = 1.0) -> Curve:
    """The curve with its height multiplied, then shifted."""

    def at(parameter: Floats) -> tuple[Floats, Floats]:
        x, y = curve.at(parameter)
        return x + right, y * flatten + up

    return Curve(at, curve.power, curve.panels)


def _dot(right: float, up: float) -> Curve:
    """A curve that stays where it is."""
    return Curve(lambda parameter: (np.full_like(parameter, right), np.full_like(parameter, up)), panels=1)


def _spiral(sign: float) -> Curve:
    def at(parameter: Floats) -> tuple[Floats, Floats]:
        cos, sin = cos_sin(parameter * 1.5)
        radius = parameter * (math.pi * sign)
        return -radius * cos, radius * sin

    return Curve(at, power=2, panels=48)


def _two_moons() -> NoisyCurves:
    upper = _moved(_circle(2.0, turns=0.5), -1.0, -0.5)
    lower = _moved(_circle(2.0, turns=-0.5), 1.0, 0.5)
    return NoisyCurves([upper, lower], 0.2, [(-4, 4), (-3, 3)])


def _eight_gaussians() -> Mixture:
    means = np.stack(cos_sin(np.arange(8) / 8), axis=1) * math.sqrt(8)
    factors = np.tile(np.eye(2) * math.sqrt(1 / 8), (8, 1, 1))
    return Mixture([1 / 8] * 8, means, factors, [(-4.2, 4.2)] * 2)


def _pinwheel() -> Twisted:
    cos, sin = cos_sin(np.arange(5) / 5)
    factors = np.stack([np.stack([0.6 * cos, -0.2 * sin], 1), np.stack([0.6 * sin, 0.2 * cos], 1)], axis=1)
    blades = Mixture([1 / 5] * 5, np.stack([cos, sin], axis=1) * 2.0, factors, [(-5.0, 5.0)] * 2)
    return Twisted(blades, 0.1, [(-4.2, 4.2)] * 2)


def _smiley() -> NoisyCurves:
    mouth = _moved(_circle(2.0, turns=-0.5), 0.0, 0.0, flatten=0.5)
    return NoisyCurves([_dot(-1.5, 2.5), _dot(1.5, 2.5), mouth], 0.2, [(-3.2, 3.2), (-2.2, 3.8)])


DENSITIES: Mapping[str, PointDensity] = MappingProxyType(
    {
        "two-moons": _two_moons(),
        "eight-gaussians": _eight_gaussians(),
        "checkerboard": Checkerboard(2, 2.0),
        "spirals": NoisyCurves([_spiral(1.0), _spiral(-1.0)], 0.1, [(-3.8, 3.8)] * 2),
        "pinwheel": _pinwheel(),
        "smiley": _smiley(),
        "rings": NoisyCurves(
            [_circle(0.75 * number, panels=4 * number) for number in (1, 2, 3, 4)], 0.24, [(-4, 4)] * 2
        ),
        "mixture-1d": mixture_1d([0.3, 0.5, 0.2], [-2.0, 0.5, 3.0], [0.5, 0.3, 0.8], (-4.5, 6.0)),
        "claw-1d": mixture_1d(
            [0.5, *[0.1] * 5], [0.0, *(number / 2 - 1 for number in range(5))], [1.0, *[0.1] * 5], (-3.5, 3.5)
        ),
        "comb-1d": mixture_1d(
            [2.0 ** (5 - number) / 63 for number in range(6)],
            [(65 - 96 * 0.5**number) / 21 for number in range(6)],
            [32 / 63 / 2.0**number for number in range(6)],
            (-3.5, 3.5),
        ),
    }
)
"""The densities by name."""
