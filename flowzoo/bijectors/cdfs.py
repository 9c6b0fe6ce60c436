"""Distribution functions of mixtures, both tails in log space, and the way to normal and logistic variables."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.bijectors.numeric import polished, require_converged, solve_by_newton
from flowzoo.errors import ConfigError

ComponentKind = Literal["normals", "logistics"]
OutputKind = Literal["uniform", "normal", "logistic"]

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class MixtureMap:
    """z = G^-1(F(x)) elementwise, with F a mixture's distribution function and G that of the output.

    F(x) = sum_k w_k C((x - m_k) / s_k), C normal or logistic; log dz/dx = log f(x) - log g(z). F and 1 - F are kept
    apart in log space, so that values far out do not end as 0 or 1. The inverse is solved for.

    Args:
        log_weights: Logarithms of weights, ``(..., K)``, not yet normalised; leading dimensions as those of x, or
            such that they broadcast.
        means: ``(..., K)``.
        log_scales: ``(..., K)``.
        components: Kind of C.
        output: The distribution of z if x has the mixture's.
    """

    def __init__(
        self,
        log_weights: Tensor,
        means: Tensor,
        log_scales: Tensor,
        components: ComponentKind = "normals",
        output: OutputKind = "normal",
    ) -> None:
        if components not in ("normals", "logistics") or output not in ("uniform", "normal", "logistic"):
            raise ConfigError(
                f"MixtureMap has components {components!r} and output {output!r}; expected 'normals' or "
                "'logistics', and 'uniform', 'normal' or 'logistic'."
            )
        # Several times as fast as log_softmax over so short a dimension.
        self.log_weights = log_weights - torch.logsumexp(log_weights, dim=-1, keepdim=True)
        self.means, self.log_scales = means, log_scales
        self.components, self.output = components, output

    def to(self, dtype: torch.dtype) -> MixtureMap:
        """The same map in another precision."""
        parts = (self.log_weights.to(dtype), self.means.to(dtype), self.log_scales.to(dtype))
        return MixtureMap(*parts, self.components, self.output)

    def logs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log F, log(1 - F) and log f, each the shape of x."""
        standard = (x.unsqueeze(-1) - self.means) * torch.exp(-self.log_scales)
        if self.components == "normals":
            below, above = torch.special.log_ndtr(standard), torch.special.log_ndtr(-standard)
            log_density = -0.5 * standard.square() - LOG_SQRT_2PI
        else:
            below, above = F.logsigmoid(standard), F.logsigmoid(-standard)
            log_density = below + above
        parts = (below, above, log_density - self.log_scales)
        log_f, log_s, log_d = (torch.logsumexp(self.log_weights + part, dim=-1) for part in parts)
        return log_f, log_s, log_d

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x to z.

        Returns:
            z and log dz/dx, each the shape of x.
        """
        if self.output == "uniform":
            return self._to_uniform(x)
        below, above, log_f = self.logs(x)
        if self.output == "logistic":
            return below - above, log_f - below - above
        z = normal_quantile(below, above)
        return z, log_f + 0.5 * z.square() + LOG_SQRT_2PI

    def _to_uniform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """F and log f: what is left above is no part of them, and F itself needs no logarithm."""
        standard = (x.unsqueeze(-1) - self.means) * torch.exp(-self.log_scales)
        if self.components == "normals":
            # The same as ndtr, and ten times as fast.
            below = 0.5 * torch.erfc(-math.sqrt(0.5) * standard)
            log_density = -0.5 * standard.square() - LOG_SQRT_2PI
        else:
            below, log_density = standard.sigmoid(), F.logsigmoid(standard) + F.logsigmoid(-standard)
        # Rounding may take a sum of weights beyond 1, where the unit interval ends.
        z = (self.log_weights.exp() * below).sum(-1).clamp(max=1.0)
        return z, torch.logsumexp(self.log_weights + log_density - self.log_scales, dim=-1)

    def _value_and_slope(self, x: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        log_weights, means, log_scales = parts
        z, log_slope = MixtureMap(log_weights, means, log_scales, self.components, self.output)(x)
        return z, log_slope.exp()

    def inverse(self, z: Tensor, owner: torch.nn.Module, tolerance: float) -> Tensor:
        """Maps z back to x, with the gradients of the solution.

        Args:
            z: Values of the output.
            owner: The bijector, for the error.
            tolerance: Largest residual allowed, relative to z or to 1.

        Returns:
            x, the shape of z.

        Raises:
            NotConverged: Some item has no solution within the tolerance.
        """
        wide = self.to(torch.float64)
        parts = [part.detach() for part in (wide.log_weights, wide.means, wide.log_scales)]
        parts = [part.expand(*z.shape, part.shape[-1]) for part in parts]
        root = solve_by_newton(self._value_and_slope, z.double(), parts)
        found, log_slope = wide(root)
        require_converged(owner, (found.detach() - z) / z.detach().abs().clamp(min=1), tolerance)
        return polished(root, found, log_slope.exp(), z.double()).to(z.dtype)


def normal_quantile(log_below: Tensor, log_above: Tensor) -> Tensor:
    """The normal quantile of a probability given by its logarithm and that of what is left; elementwise.

    Each half is computed from its own tail: 1 - F is lost where F is near 1.
    """
    lower = log_below < log_above
    # What is not chosen must not overflow either: gradients pass through both branches.
    half = torch.full_like(log_below, math.log(0.5))
    left: Tensor = torch.special.ndtri(torch.where(lower, log_below, half).exp())
    right: Tensor = -torch.special.ndtri(torch.where(lower, half, log_above).exp())
    return torch.where(lower, left, right)
