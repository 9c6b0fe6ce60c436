"""Additive and affine coupling layers, and the base class that all couplings share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector, sum_per_item, zero_log_det
from flowzoo.bijectors.partitions import Partition
from flowzoo.bijectors.scale_maps import ScaleMap
from flowzoo.nets.precision import RunsNetwork
from flowzoo.ops.affine import AffineOrder, ParameterLayout, shift_and_raw


class Coupling(Bijector, RunsNetwork):
    """One half conditions, the other is transformed elementwise (NICE, section 3.2).

    z_a = x_a,  z_b = g(x_b; net(x_a)),  log|det| = sum log |dg/dx_b|.

    A subclass writes ``_transform`` and ``_invert``: from a half and the network's output to the mapped half and
    the log-determinant ``(B,)`` of that direction, by :meth:`sum_transformed` of the elementwise log-derivative.

    Attributes:
        takes_context: Whether the network is given the context, if there is one. False where another part of the
            flow is conditional and this one is not.
    """

    takes_context = True

    def __init__(self, partition: Partition, net: nn.Module) -> None:
        """Makes the coupling.

        Args:
            partition: How an item is parted in (conditioner, transformed).
            net: ``net(conditioner, context)`` to the parameters of the elementwise map, channels first.
        """
        super().__init__()
        self.partition = partition
        self.net = net

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must define _transform")

    def _invert(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must define _invert")

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        conditioner, b = self.partition.split(x)
        b, log_det = self._transform(b, self.parameters_of(conditioner, context))
        return self.partition.merge(conditioner, b), log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        conditioner, b = self.partition.split(z)
        b, log_det = self._invert(b, self.parameters_of(conditioner, context))
        return self.partition.merge(conditioner, b), log_det

    def parameters_of(
        self, conditioner: Tensor, context: Tensor | None, *, keep_dtype: bool = False
    ) -> Tensor:
        """The network's output for a conditioner; see :meth:`RunsNetwork.run_network`."""
        known = context if self.takes_context else None
        return self.run_network(self.net, conditioner, known, keep_dtype=keep_dtype)

    def sum_transformed(self, log_derivative: Tensor) -> Tensor:
        """The log-determinant ``(B,)`` of an elementwise log-derivative, of the elements that are transformed."""
        return sum_per_item(self.partition.select(log_derivative))

    _sum = sum_transformed  # the name in version 1


class AdditiveCoupling(Coupling):
    """z_b = x_b + t(x_a), log|det| = 0 (NICE, equation 10)."""

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return x + parameters, zero_log_det(x)

    def _invert(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return z - parameters, zero_log_det(z)


class AffineCoupling(Coupling):
    """z_b = (x_b + t) s or x_b s + t, with (s, t) of x_a; log|det| = sum log s (RealNVP, equations 4 to 6)."""

    def __init__(
        self,
        partition: Partition,
        net: nn.Module,
        scale_map: ScaleMap,
        order: AffineOrder = "shift-scale",
        layout: ParameterLayout = "halves",
    ) -> None:
        """Makes the coupling.

        Args:
            partition: How an item is parted in (conditioner, transformed).
            net: Conditioner to ``2 C`` channels, where the transformed half has ``C``: shift and raw log-scale.
            scale_map: Raw log-scale to log s.
            order: ``"shift-scale"`` is (x + t) s, ``"scale-shift"`` is x s + t.
            layout: ``"halves"``: shifts, then log-scales; ``"interleaved"``: even and odd channels, as in Glow.
        """
        super().__init__(partition, net)
        self.scale_map = scale_map
        self.order = order
        self.layout = layout

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = shift_and_raw(parameters, self.layout)
        log_scale = self.scale_map(raw)
        s = torch.exp(log_scale)
        z = (x + shift) * s if self.order == "shift-scale" else x * s + shift
        return z, self._sum(log_scale)

    def _invert(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = shift_and_raw(parameters, self.layout)
        log_scale = self.scale_map(raw)
        s = torch.exp(log_scale)
        x = z / s - shift if self.order == "shift-scale" else (z - shift) / s
        return x, -self._sum(log_scale)
