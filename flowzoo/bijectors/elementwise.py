"""Fixed elementwise maps between pixel values and the real line."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.bijectors.base import Bijector, sum_per_item
from flowzoo.errors import ConfigError


class Logit(Bijector):
    """z = logit(alpha + (1 - 2 alpha) x) for x in [0, 1] (RealNVP, section 4.1, in the form of its code).

    log|det| = sum log(1 - 2 alpha) + softplus(z) + softplus(-z): stable where y (1 - y) is not.
    """

    def __init__(self, alpha: float) -> None:
        """Makes the map; alpha is part of the model, 0 < alpha < 1/2."""
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ConfigError(
                f"logit alpha is {alpha}; expected a number between 0 and 0.5, such as 0.05 or 1e-5."
            )
        self.alpha = alpha

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z = torch.logit(self.alpha + (1 - 2 * self.alpha) * x)
        return z, sum_per_item(self._log_derivative(z))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)
        return x, -sum_per_item(self._log_derivative(z))

    def _log_derivative(self, z: Tensor) -> Tensor:
        return F.softplus(z) + F.softplus(-z) + math.log(1 - 2 * self.alpha)


class Sigmoid(Bijector):
    """z = sigmoid(x), log|det| = -sum softplus(x) + softplus(-x)."""

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(x), -sum_per_item(F.softplus(x) + F.softplus(-x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = torch.logit(z)
        return x, sum_per_item(F.softplus(x) + F.softplus(-x))


class FixedAffine(Bijector):
    """z = scale x + shift with two fixed numbers, log|det| = D log|scale|; such as x - 1/2 in Glow."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        """Makes the map; scale must not be 0."""
        super().__init__()
        if scale == 0:
            raise ConfigError("FixedAffine needs a scale other than 0; a zero scale has no inverse.")
        self.scale = scale
        self.shift = shift

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x * self.scale + self.shift, self._log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (z - self.shift) / self.scale, -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return x.new_full((x.shape[0],), math.prod(x.shape[1:]) * math.log(abs(self.scale)))
