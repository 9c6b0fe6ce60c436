"""Autoregressive bijectors with normal and with mixture conditionals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowzoo.bijectors import Autoregressive, Bijector, MapKind, MixtureMap, OutputKind, Sampler
from flowzoo.nets.made import MADE

TOLERANCE = 1e-5
"""The largest residual of a mixture's inverse in float32, relative to a value or to 1."""


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
