"""Base densities: standard, factorised, over the flattened latent ``(B, D)``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TINY = 2.0**-25


def drawn(
    function: Callable[..., Tensor],
    shape: tuple[int, ...],
    generator: torch.Generator | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Random numbers by ``torch.rand`` or ``torch.randn``, drawn where the generator is and moved to the device."""
    source = device if generator is None else generator.device
    return function(shape, generator=generator, device=source, dtype=dtype).to(device)


class BaseDensity(nn.Module):
    """A standard factorised density on R^D, or on a cube of it.

    Attributes:
        centre: The point, in each dimension, towards which a temperature below 1 draws latents.
        discrete: True if ``log_prob`` is a probability of points on a grid rather than a density.
    """

    centre: float = 0.0
    discrete = False

    def at_temperature(self, z: Tensor, temperature: float) -> Tensor:
        """Latents ``(n, D)`` drawn towards the centre: centre + temperature (z - centre)."""
        if temperature == 1.0:
            return z
        return z * temperature if self.centre == 0.0 else (z - self.centre) * temperature + self.centre

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats: ``(B, D)`` to ``(B,)``."""
        raise NotImplementedError

    def sample(
        self,
        n: int,
        dims: int,
        *,
        generator: torch.Generator | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Draws ``(n, dims)``; a CPU generator gives the same numbers for every device."""
        raise NotImplementedError


class StandardNormal(BaseDensity):
    """log p(z) = -(z^2 + log 2 pi) / 2 per dimension."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats: ``(B, D)`` to ``(B,)``."""
        return -0.5 * (z.square().sum(dim=1) + z.shape[1] * math.log(2 * math.pi))

    def sample(
        self,
        n: int,
        dims: int,
        *,
        generator: torch.Generator | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Draws ``(n, dims)`` from N(0, 1)."""
        return drawn(torch.randn, (n, dims), generator, device, dtype)


class StandardLogistic(BaseDensity):
    """log p(z) = -softplus(z) - softplus(-z) per dimension (NICE, section 3.4)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats: ``(B, D)`` to ``(B,)``."""
        return -(F.softplus(z) + F.softplus(-z)).sum(dim=1)

    def sample(
        self,
        n: int,
        dims: int,
        *,
        generator: torch.Generator | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Draws ``(n, dims)`` from the standard logistic."""
        return torch.logit(drawn(torch.rand, (n, dims), generator, device, dtype).clamp(_TINY, 1 - _TINY))
