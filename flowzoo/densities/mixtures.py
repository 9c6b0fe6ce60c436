"""Base densities that are mixtures of normals or of logistics, learned with the flow."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.densities.base import BaseDensity, drawn
from flowzoo.errors import ConfigError

_TINY = 2.0**-53


class Mixture(BaseDensity):
    """p(z) = prod over dimensions of sum_k w_k q((z - m_k) / s_k) / s_k, the same or another mixture for each.

    A subclass says what q is. Weights are a softmax, scales an exponential.
    """

    def __init__(self, components: int, dims: int | None = None, spread: float = 2.0) -> None:
        """Makes a mixture of equal weights and unit scales.

        Args:
            components: K, at least 1.
            dims: D for a mixture of its own in each dimension; None for one that all share.
            spread: Component means begin evenly between -spread and spread.
        """
        super().__init__()
        if components < 1 or (dims is not None and dims < 1):
            raise ConfigError(
                f"a mixture of {components} components in {dims} dimensions; expected at least 1."
            )
        rows = 1 if dims is None else dims
        means = torch.linspace(-spread, spread, components) if components > 1 else torch.zeros(1)
        self.logits = nn.Parameter(torch.zeros(rows, components))
        self.means = nn.Parameter(means.repeat(rows, 1))
        self.log_scales = nn.Parameter(torch.zeros(rows, components))

    def component_log_prob(self, z: Tensor) -> Tensor:
        """Log-density of the standard component, elementwise."""
        raise NotImplementedError

    def component_icdf(self, u: Tensor) -> Tensor:
        """Quantile function of the standard component, elementwise."""
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats: ``(B, D)`` to ``(B,)``."""
        standard = (z.unsqueeze(-1) - self.means) * torch.exp(-self.log_scales)
        terms = self.component_log_prob(standard) - self.log_scales + F.log_softmax(self.logits, dim=-1)
        total: Tensor = torch.logsumexp(terms, dim=-1).sum(dim=1)
        return total

    def sample(
        self,
        n: int,
        dims: int,
        *,
        generator: torch.Generator | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Draws ``(n, dims)``: a component by its weight, then a value of it."""
        u = drawn(torch.rand, (2, n, dims), generator, device, torch.float64)
        weights = torch.softmax(self.logits.double(), dim=-1).expand(dims, -1)
        # The last cumulative weight may be less than 1 by rounding.
        edges = weights.cumsum(-1)[:, :-1].contiguous()
        chosen = torch.searchsorted(edges, u[0].T.contiguous(), right=True).T
        rows = torch.arange(dims, device=device).expand(n, -1)
        means = self.means.double().expand(dims, -1)[rows, chosen]
        scales = self.log_scales.double().exp().expand(dims, -1)[rows, chosen]
        return (means + scales * self.component_icdf(u[1].clamp(_TINY, 1 - _TINY))).to(dtype)


class NormalMixture(Mixture):
    """A mixture of normals."""

    def component_log_prob(self, z: Tensor) -> Tensor:
        """Log N(z; 0, 1), elementwise."""
        return -0.5 * (z.square() + math.log(2 * math.pi))

    def component_icdf(self, u: Tensor) -> Tensor:
        """Normal quantiles."""
        quantiles: Tensor = torch.special.ndtri(u)
        return quantiles


class LogisticMixture(Mixture):
    """A mixture of logistics."""

    def component_log_prob(self, z: Tensor) -> Tensor:
        """Log-density of the standard logistic, elementwise."""
        return -F.softplus(z) - F.softplus(-z)

    def component_icdf(self, u: Tensor) -> Tensor:
        """Logistic quantiles."""
        return torch.logit(u)
