"""Base densities on the unit cube: uniform and beta."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowzoo.densities.base import BaseDensity, drawn
from flowzoo.errors import ConfigError


class StandardUniform(BaseDensity):
    """log p(z) = 0 in [0, 1]^D and minus infinity outside: the base of flows that end in distribution functions."""

    centre = 0.5

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats: ``(B, D)`` to ``(B,)``."""
        inside = ((z >= 0) & (z <= 1)).all(dim=1)
        # A term in z keeps the graph, so that a gradient is zero rather than missing.
        return torch.where(inside, 0.0 * z.clamp(0, 1).sum(dim=1), -math.inf)

    def sample(
        self,
        n: int,
        dims: int,
        *,
        generator: torch.Generator | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Draws ``(n, dims)`` from [0, 1)."""
        return drawn(torch.rand, (n, dims), generator, device, dtype)


class StandardBeta(BaseDensity):
    """log p(z) = (a - 1) log z + (b - 1) log(1 - z) - log B(a, b) per dimension, in (0, 1)."""

    def __init__(self, a: float, b: float) -> None:
        """Makes Beta(a, b).

        Args:
            a: First shape, above 0.
            b: Second shape, above 0.
        """
        super().__init__()
        if not (0 < a < math.inf and 0 < b < math.inf):
            raise ConfigError(f"Beta({a}, {b}) is no density; expected two finite numbers above 0.")
        self.a, self.b = float(a), float(b)
        self.centre = self.a / (self.a + self.b)
        self.log_normalizer = math.lgamma(self.a) + math.lgamma(self.b) - math.lgamma(self.a + self.b)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats: ``(B, D)`` to ``(B,)``."""
        inside = ((z >= 0) & (z <= 1)).all(dim=1)
        known = z.clamp(0, 1)
        terms = torch.special.xlogy(self.a - 1, known) + torch.special.xlogy(self.b - 1, 1 - known)
        return torch.where(inside, (terms - self.log_normalizer).sum(dim=1), -math.inf)

    def sample(
        self,
        n: int,
        dims: int,
        *,
        generator: torch.Generator | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Draws ``(n, dims)`` on the CPU in float64, by torch's beta distribution."""
        like = torch.ones(n, dims, dtype=torch.float64)
        beta = torch.distributions.Beta(like * self.a, like * self.b)
        if generator is None:
            return beta.sample().to(device=device, dtype=dtype)
        # The distribution takes no generator: it draws from the global one, which is put back.
        with torch.random.fork_rng(devices=[]):
            seed = torch.randint(2**62, (), generator=generator, device=generator.device)
            torch.manual_seed(int(seed))
            return beta.sample().to(device=device, dtype=dtype)
