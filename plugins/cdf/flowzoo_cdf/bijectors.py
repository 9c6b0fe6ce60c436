"""Distribution functions of mixtures as bijectors, affine maps, and the way from uniform to other bases."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.bijectors import (
    Bijector,
    ComponentKind,
    MapKind,
    MixtureMap,
    OutputKind,
    polished,
    require_converged,
    solve_increasing,
    sum_per_item,
)

TOLERANCE = 1e-5
"""The largest residual that a numeric direction accepts in float32, relative to its output or to 1."""


class MixtureCDF(Bijector):
    """z = G^-1(F(x)), F the distribution function of a mixture of its own for each value: see ``MixtureMap``."""

    def __init__(
        self,
        dims: int,
        components: int,
        kind: ComponentKind,
        output: OutputKind,
        *,
        shared: bool = False,
    ) -> None:
        """Makes a mixture with means between -2 and 2.

        Args:
            dims: D of ``(B, D)``.
            components: K.
            kind: Of the components.
            output: The distribution that z has if x has the mixture's.
            shared: Whether all values have the same mixture.
        """
        super().__init__()
        rows = 1 if shared else dims
        means = torch.linspace(-2, 2, components) if components > 1 else torch.zeros(1)
        self.components, self.output = kind, output
        self.logits = nn.Parameter(torch.zeros(rows, components))
        self.means = nn.Parameter(means.repeat(rows, 1))
        self.log_scales = nn.Parameter(torch.full((rows, components), -math.log(max(1, components / 4))))
        self.own_kind = MapKind(inverse="numeric", tolerance=TOLERANCE)

    def _map(self) -> MixtureMap:
        return MixtureMap(self.logits, self.means, self.log_scales, self.components, self.output)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_derivative = self._map()(x)
        return z, sum_per_item(log_derivative)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        tolerance = 1e-9 if z.dtype == torch.float64 else TOLERANCE
        x = self._map().inverse(z, self, tolerance)
        return x, -sum_per_item(self._map()(x)[1])


class UniformToBeta(Bijector):
    """z = F^-1(u), F the distribution function of Beta(a, b) with whole a and b, elementwise; log|det| = -sum log f(z).

    F is a polynomial: the probability of at least a successes in a + b - 1 trials. F^-1 is solved for.
    """

    own_kind = MapKind(forward="numeric", tolerance=1e-6)

    def __init__(self, a: int, b: int) -> None:
        """Makes the map.

        Args:
            a: First shape.
            b: Second shape.
        """
        super().__init__()
        self.a, self.b = a, b

    def _cdf(self, z: Tensor) -> Tensor:
        trials = self.a + self.b - 1
        terms = [math.comb(trials, k) * z**k * (1 - z) ** (trials - k) for k in range(self.a, trials + 1)]
        return torch.stack(terms).sum(0)

    def _log_density(self, z: Tensor) -> Tensor:
        normalizer = math.lgamma(self.a) + math.lgamma(self.b) - math.lgamma(self.a + self.b)
        powers: Tensor = torch.special.xlogy(self.a - 1, z) + torch.special.xlogy(self.b - 1, 1 - z)
        return powers - normalizer

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # A slope outside [0, 1] lets a value that rounding put there have a solution.
        def extended(z: Tensor) -> Tensor:
            inside = z.clamp(0, 1)
            return self._cdf(inside) + (z - inside)

        middle = torch.full_like(x, 0.5, dtype=torch.float64)
        root = solve_increasing(extended, x.double(), guess=middle, width=0.5).clamp(1e-15, 1 - 1e-15)
        require_converged(self, (self._cdf(root) - x.detach().double()), 1e-6)
        z = polished(root, self._cdf(root), self._log_density(root).exp(), x.double())
        return z.to(x.dtype), -sum_per_item(self._log_density(z.clamp(0, 1)).to(x.dtype))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        inside = z.clamp(0, 1)
        return self._cdf(inside), sum_per_item(self._log_density(inside))


class FullAffine(Bijector):
    """z = A x + b, log|det| = log|det A|: of normal data and base the whole of the maximum likelihood fit."""

    def __init__(self, dims: int) -> None:
        """Makes the identity.

        Args:
            dims: D of ``(B, D)``.
        """
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(dims))
        self.bias = nn.Parameter(torch.zeros(dims))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return F.linear(x, self.matrix, self.bias), self._log_det().expand(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = torch.linalg.solve(self.matrix, (z - self.bias).T).T
        return x, -self._log_det().expand(z.shape[0])

    def _log_det(self) -> Tensor:
        found: Tensor = torch.linalg.slogdet(self.matrix)[1]
        return found


class ElementwiseAffine(Bijector):
    """z = (x + b) exp(s), one b and s for each value, log|det| = sum s."""

    def __init__(self, dims: int, *, shared: bool = False) -> None:
        """Makes the identity.

        Args:
            dims: D of ``(B, D)``.
            shared: Whether all values have the same b and s.
        """
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1 if shared else dims))
        self.log_scale = nn.Parameter(torch.zeros(1 if shared else dims))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (x + self.bias) * self.log_scale.exp(), sum_per_item(self.log_scale.expand_as(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp() - self.bias, -sum_per_item(self.log_scale.expand_as(z))
