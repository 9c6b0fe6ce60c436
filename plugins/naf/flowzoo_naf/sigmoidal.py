"""The deep sigmoidal flow: an increasing network of one value, its log-derivative, and its inverse by bracketing.

Source: Huang et al. 2018, *Neural Autoregressive Flows* (arXiv 1804.00779), section 3.1, equation 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.bijectors import log_det_wanted, polished, require_converged, solve_by_newton
from flowzoo.errors import ConfigError

__all__ = ["TOLERANCE", "SigmoidalFlow"]

TOLERANCE = 1e-9
"""Largest residual |f(x) - y| of an inverse, relative to y or to 1; equations are solved in float64."""

SMALLEST_SLOPE = 1e-3
"""Added to every slope a: where all were near zero, a sample would be as far out as their inverse is large."""


@dataclass(frozen=True, slots=True)
class SigmoidalFlow:
    """y = logit(sum_k w_k sigmoid(a_k x + b_k)), elementwise, a_k > 0 and the w_k a convex combination (equation 8).

    Several layers follow one on another. Everything is in log space: with c_k = a_k x + b_k,

    log D = logsumexp(log w + log sigmoid(c)),  log(1 - D) = logsumexp(log w + log sigmoid(-c)),
    y = log D - log(1 - D),
    log dy/dx = logsumexp(log w + log sigmoid(c) + log sigmoid(-c) + log a) - log D - log(1 - D),

    so that no margin has to keep D from 0 and 1, as the released code's 1e-6 does, and the map is onto the whole line.

    Attributes:
        units: K, sigmoids in a layer.
        layers: Layers.
    """

    units: int
    layers: int = 1

    def __post_init__(self) -> None:
        """Refuses fewer than one of either.

        Raises:
            ConfigError: A number is below 1.
        """
        if min(self.units, self.layers) < 1:
            raise ConfigError(
                f"SigmoidalFlow of {self.units} units and {self.layers} layers: give at least 1."
            )

    @property
    def parameters(self) -> int:
        """P, the raw parameters of one value's map; all zero is the identity."""
        return 3 * self.units * self.layers

    @torch.no_grad()
    def begin(self, layer: nn.Linear | nn.Conv2d, bound: float, spread: float) -> None:
        """Draws the last layer of a conditioner so that the maps begin near the identity, their units apart.

        Weights and biases are within ``bound`` of zero. With nothing but that, as in the released code, all units of a
        map have nearly the same gradient and stay alike for hundreds of steps; so the offsets b_k begin between
        ``-spread`` and ``spread``.
        """
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        assert layer.bias is not None
        offsets = torch.linspace(-spread, spread, self.units) if self.units > 1 else torch.zeros(1)
        layer.bias.view(-1, self.layers, 3, self.units)[:, :, 1] += offsets.to(layer.bias)

    def _layers(self, raw: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Slopes, offsets and log-weights of each layer, ``(..., K)``."""
        # A slope of 1 for a parameter of 0.
        start = math.log(math.expm1(1 - SMALLEST_SLOPE))
        for part in raw.chunk(self.layers, dim=-1):
            a, b, w = part.chunk(3, dim=-1)
            yield SMALLEST_SLOPE + F.softplus(a + start), b, w - torch.logsumexp(w, -1, keepdim=True)

    def __call__(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x.

        Args:
            x: Values of any shape.
            raw: The shape of x and a last dimension of P.

        Returns:
            y and log dy/dx, each the shape of x.
        """
        total = torch.zeros_like(x)
        for a, b, log_w in self._layers(raw):
            c = a * x.unsqueeze(-1) + b
            below, above = F.logsigmoid(c), F.logsigmoid(-c)
            log_d, log_rest = torch.logsumexp(log_w + below, -1), torch.logsumexp(log_w + above, -1)
            log_slope = torch.logsumexp(log_w + below + above + a.log(), -1)
            x, total = log_d - log_rest, total + log_slope - log_d - log_rest
        return x, total

    def inverse(self, y: Tensor, raw: Tensor, owner: nn.Module) -> tuple[Tensor, Tensor]:
        """Maps y back, with the gradients of the solution.

        A bracket around the guess of an affine map is doubled until it holds the root, which Newton steps find in
        float64.

        Args:
            y: Values of any shape, batch first.
            raw: The shape of y and a last dimension of P.
            owner: The bijector, for the error.

        Returns:
            x and log dx/dy, each the shape of y.

        Raises:
            NotConverged: Some item has no solution within :data:`TOLERANCE`.
        """
        target, wide = y.double(), raw.double()
        guess = self._guess(target.detach(), wide.detach())
        layers = [part.detach() for layer in self._layers(wide) for part in layer]
        root = solve_by_newton(_value_and_slope, target, layers, guess=guess)
        found, log_slope = self(root, wide)
        residual = (found.detach() - target.detach()) / target.detach().abs().clamp_min(1)
        require_converged(owner, residual.unsqueeze(-1), TOLERANCE)
        x = polished(root, found, log_slope.exp(), target).to(y.dtype)
        # Of the values as they are returned, in their precision.
        return x, -self(x, raw)[1] if log_det_wanted() else torch.zeros_like(x)

    def _guess(self, y: Tensor, raw: Tensor) -> Tensor:
        """The inverse of y = (sum w a) x + sum w b, layer by layer: exact where all units are one."""
        for a, b, log_w in reversed(list(self._layers(raw))):
            w = log_w.exp()
            y = (y - (w * b).sum(-1)) / (w * a).sum(-1)
        return y


def _value_and_slope(x: Tensor, *layers: Tensor) -> tuple[Tensor, Tensor]:
    """The map and its slope without logarithms, which float64 bears; infinite where all units are saturated."""
    total = torch.ones_like(x)
    for a, b, log_w in zip(layers[::3], layers[1::3], layers[2::3], strict=True):
        c = torch.addcmul(b, a, x.unsqueeze(-1))
        below, above, w = c.sigmoid(), (-c).sigmoid(), log_w.exp()
        low, high = torch.linalg.vecdot(w, below), torch.linalg.vecdot(w, above)
        slope = torch.linalg.vecdot(w * a, below * above)
        x, total = low.log() - high.log(), total * slope / low / high
    return x, total
