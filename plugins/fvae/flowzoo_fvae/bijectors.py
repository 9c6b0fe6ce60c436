"""An image and its latent as one vector: how it is parted, and the maps of either part (Su and Wu, 2018).

With e = E(x) + s u drawn from q(e|x), the flow maps (x, e) to standard normal variables: r = (x - G(e)) / t, the rest
of the image that the decoder leaves, and z = F(e), by the prior. The logarithm of its density at (x, e), less
log q(e|x), is the paper's loss with the sign changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowzoo.bijectors import Bijector, Coupling, Partition
from flowzoo.densities import Augmentation, StandardNormal
from flowzoo.densities.dequantization import Run
from flowzoo.nets.keyed import draw
from flowzoo.nets.precision import RunsNetwork


@dataclass(frozen=True, kw_only=True)
class DataAndExtra(Partition):
    """``(B, D + d)`` as data ``(B, *data_shape)`` and extra values ``(B, *extra_shape)``.

    The data condition, unless ``swap`` is true: then the extra values do.

    Attributes:
        data_shape: Of D values.
        extra_shape: Of d values.
    """

    data_shape: tuple[int, ...]
    extra_shape: tuple[int, ...]

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = math.prod(self.data_shape)
        data = x[:, :size].reshape(x.shape[0], *self.data_shape)
        return data, x[:, size:].reshape(x.shape[0], *self.extra_shape)

    def _merge(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat((first.flatten(1), second.flatten(1)), dim=1)


class Both(Bijector):
    """(x, e) to (f(x), g(e)); log|det| is the sum of theirs. Both f and g give flat vectors."""

    def __init__(self, partition: DataAndExtra, data: Bijector, extra: Bijector) -> None:
        """Makes the map.

        Args:
            partition: How the two are parted.
            data: f, ``(B, *data_shape)`` to ``(B, D)``.
            extra: g, ``(B, *extra_shape)`` to ``(B, d)``.
        """
        super().__init__()
        self.partition = partition
        self.data, self.extra = data, extra

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        data, extra = self.partition.split(x)
        data, log_det = self.data(data, context)
        extra, term = self.extra(extra, context)
        return torch.cat((data, extra), dim=1), log_det + term

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        size = math.prod(self.partition.data_shape)
        data, log_det = self.data.inverse(z[:, :size], context)
        extra, term = self.extra.inverse(z[:, size:], context)
        return self.partition.merge(data, extra), log_det + term


class SharedScaleCoupling(Coupling):
    """z_b = (x_b - m(x_a)) / s with one learned s for all n values of x_b; log|det| = -n log s.

    With (e, x) for (a, b) it is a decoder of constant variance, with (x, e) an encoder.
    """

    def __init__(self, partition: Partition, net: nn.Module) -> None:
        """Makes the coupling, s = 1.

        Args:
            partition: How an item is parted in (conditioner, transformed).
            net: m, ``net(x_a, context)`` to the shape of x_b.
        """
        super().__init__(partition, net)
        self.log_scale = nn.Parameter(torch.zeros(1))

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return (x - parameters) * torch.exp(-self.log_scale), -self._log_scales(x)

    def _invert(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return z * self.log_scale.exp() + parameters, self._log_scales(z)

    def _log_scales(self, x: Tensor) -> Tensor:
        return (self.log_scale * math.prod(x.shape[1:])).to(x.dtype).expand(x.shape[0])


class SharedScaleAugmentation(Augmentation, RunsNetwork):
    """e = m(v) + s u, u standard normal, with one learned s for all values: the paper's encoder."""

    def __init__(self, encoder: nn.Module, extra_dims: int) -> None:
        """Makes the stage, s = 1.

        Args:
            encoder: m, ``encoder(v, None)`` gives ``(B, d)``.
            extra_dims: d.
        """
        super().__init__(extra_dims)
        self.encoder = encoder
        self.log_scale = nn.Parameter(torch.zeros(1))

    def draw(self, v: Tensor, run: Run, central: bool) -> tuple[Tensor, Tensor]:
        """Draws from N(m, s^2)."""
        mean = self.run_network(self.encoder, v, None)
        shape = (self.extra_dims,)
        u = v.new_zeros(v.shape[0], *shape) if central else draw(self, "normal", shape, v, per="sample")
        log_q = StandardNormal().log_prob(u) - self.log_scale * self.extra_dims
        return mean + self.log_scale.exp() * u, log_q
