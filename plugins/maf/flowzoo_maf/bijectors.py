"""Autoregressive bijectors with normal and with mixture conditionals."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from flowzoo.bijectors import Bijector, MapKind, MixtureMap, OutputKind, require_converged, sum_per_item
from flowzoo_maf.made import MADE, Incremental

Sampler = Literal["sequential", "jacobi"]

TOLERANCE = 1e-5
"""The largest change, relative to a value or to 1, at which Jacobi iterations have converged, in float32."""


class Autoregressive(Bijector):
    """z_i = g(x_i; h_i(x_1 .. x_(i-1))), log|det| = sum log dg/dx_i (MAF, section 3.1), h a MADE.

    The forward direction is one evaluation of the network. The inverse finds one value after the other; Jacobi
    iterations x <- g^-1(z; h(x)) instead compute all values at once until none changes, which takes D iterations at
    most and often far fewer.

    A subclass writes ``_map`` and ``_unmap``, elementwise.
    """

    def __init__(self, made: MADE, sampler: Sampler = "sequential") -> None:
        """Makes the layer.

        Args:
            made: The network, P parameters for each value.
            sampler: How the inverse is computed.
        """
        super().__init__()
        self.made = made
        self.sampler = sampler
        passes = len(made.degrees)
        numeric = sampler == "jacobi"
        self.own_kind = MapKind(
            inverse="numeric" if numeric else "sequential",
            inverse_passes=passes,
            tolerance=TOLERANCE if numeric else None,
        )

    def _map(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Z and log dz/dx of values x under parameters ``(*x.shape, P)``."""
        raise NotImplementedError

    def _unmap(self, z: Tensor, parameters: Tensor) -> Tensor:
        """The inverse of :meth:`_map`."""
        raise NotImplementedError

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_derivative = self._map(x, self.made(x))
        return z, sum_per_item(log_derivative)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            x = self._with_gradients(z)
        elif self.sampler == "jacobi":
            x = self._jacobi(z)
        else:
            x = self._one_by_one(z)
        _, log_derivative = self._map(x, self.made(x))
        return x, -sum_per_item(log_derivative)

    def _one_by_one(self, z: Tensor) -> Tensor:
        """Each value once, each hidden unit once."""
        state, order = Incremental(self.made, len(z)), self.made.order
        z = z[:, order]
        for place in range(z.shape[1]):
            state.add(place, self._unmap(z[:, place], state.parameters(place)))
        x: Tensor = torch.empty_like(z).index_copy_(1, order, state.x.to(z.dtype))
        return x

    def _with_gradients(self, z: Tensor) -> Tensor:
        """Each value from a whole evaluation of the network, recorded: D of them."""
        x = torch.zeros_like(z)
        for place in self.made.order.tolist():
            value = self._unmap(z[:, place], self.made(x)[:, place])
            x = torch.cat((x[:, :place], value[:, None], x[:, place + 1 :]), dim=1)
        return x

    def _jacobi(self, z: Tensor) -> Tensor:
        """All values at once until none changes by more than the tolerance."""
        tolerance = TOLERANCE if z.dtype == torch.float32 else 1e-12
        x, change = torch.zeros_like(z), torch.full_like(z, torch.inf)
        for _ in range(z.shape[1] + 1):
            again = self._unmap(z, self.made(x))
            change = (again - x) / again.abs().clamp(min=1)
            x = again
            if bool((change.abs() <= tolerance).all()):
                break
        require_converged(self, change, tolerance)
        return x


class AffineAutoregressive(Autoregressive):
    """z_i = (x_i - m_i) exp(-a_i), log dz/dx = -a_i: each conditional is a normal (MAF, equation 3).

    The network gives m and the logarithm of the precision, p = -2 a, unbounded as in the paper's code; a clip makes a
    into c tanh(a / c).
    """

    def __init__(self, made: MADE, sampler: Sampler = "sequential", clip: float = 0.0) -> None:
        """Makes the layer.

        Args:
            made: The network, two parameters for each value.
            sampler: How the inverse is computed.
            clip: c, or 0 for none.
        """
        super().__init__(made, sampler)
        self.clip = clip

    def _mean_and_log_scale(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_precision = parameters.unbind(-1)
        log_scale = -0.5 * log_precision
        return mean, self.clip * torch.tanh(log_scale / self.clip) if self.clip else log_scale

    def _map(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._mean_and_log_scale(parameters)
        return (x - mean) * torch.exp(-log_scale), -log_scale

    def _unmap(self, z: Tensor, parameters: Tensor) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(parameters)
        return z * log_scale.exp() + mean


class MixtureAutoregressive(Autoregressive):
    """z_i = G^-1(F_i(x_i)), F_i the distribution function of a mixture of normals given the values before.

    The density is that of a MADE with mixture conditionals (MADE MoG); z is normal, or uniform.
    """

    spread: Tensor

    def __init__(
        self, made: MADE, sampler: Sampler = "sequential", output: OutputKind = "normal", spread: float = 3.0
    ) -> None:
        """Makes the layer.

        Args:
            made: The network, 3 K parameters for each value: logits, means, log-scales.
            sampler: How the inverse is computed.
            output: The distribution that z is to have.
            spread: Means begin evenly between -spread and spread.
        """
        super().__init__(made, sampler)
        self.output = output
        components = made.parameters_per_value // 3
        means = torch.linspace(-spread, spread, components) if components > 1 else torch.zeros(1)
        self.register_buffer("spread", means)
        self.own_kind = MapKind(inverse="numeric", inverse_passes=len(made.degrees), tolerance=TOLERANCE)

    def _mixture(self, parameters: Tensor) -> MixtureMap:
        logits, means, log_scales = parameters.chunk(3, dim=-1)
        return MixtureMap(logits, means + self.spread, log_scales, "normals", self.output)

    def _map(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self._mixture(parameters)(x)

    def _unmap(self, z: Tensor, parameters: Tensor) -> Tensor:
        return self._mixture(parameters).inverse(z, self, 1e-9 if z.dtype == torch.float64 else TOLERANCE)


class ScaleAndShift(Bijector):
    """z = x exp(g) + b, one g and b for each value, log|det| = sum g: what follows a batch norm."""

    def __init__(self, dims: int) -> None:
        """Makes the identity.

        Args:
            dims: D of ``(B, D)``.
        """
        super().__init__()
        self.log_gamma = nn.Parameter(torch.zeros(dims))
        self.beta = nn.Parameter(torch.zeros(dims))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x * self.log_gamma.exp() + self.beta, self.log_gamma.sum().expand(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (z - self.beta) * torch.exp(-self.log_gamma), -self.log_gamma.sum().expand(z.shape[0])
