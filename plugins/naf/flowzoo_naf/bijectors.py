"""Deep sigmoidal flows whose parameters a network gives: in couplings, and autoregressive."""

from __future__ import annotations

from torch import Tensor, nn

from flowzoo.bijectors import Autoregressive, Coupling, MapKind, Partition
from flowzoo.nets.made import MADE
from flowzoo_naf.sigmoidal import TOLERANCE, SigmoidalFlow

__all__ = ["SigmoidalAutoregressive", "SigmoidalCoupling"]


class SigmoidalCoupling(Coupling):
    """z_b = f(x_b; net(x_a)), f a deep sigmoidal flow for each value; log|det| = sum log f'.

    The inverse is solved for, all values at once. The network gives P numbers for each value, those of a channel side
    by side.
    """

    own_kind = MapKind(inverse="numeric", tolerance=TOLERANCE)

    def __init__(self, partition: Partition, net: nn.Module, flow: SigmoidalFlow) -> None:
        """Makes the coupling.

        Args:
            partition: How an item is parted in (conditioner, transformed).
            net: Conditioner to ``P C`` channels, where the transformed half has ``C``.
            flow: The elementwise map; P is its number of parameters.
        """
        super().__init__(partition, net)
        self.flow = flow

    def _raw(self, parameters: Tensor) -> Tensor:
        """``(B, P C, ...)`` to ``(B, C, ..., P)``."""
        grouped: Tensor = parameters.unflatten(1, (-1, self.flow.parameters))
        return grouped.movedim(2, -1)

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = self.flow(x, self._raw(parameters))
        return z, self.sum_transformed(log_slope)

    def _invert(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        x, log_slope = self.flow.inverse(z, self._raw(parameters), self)
        return x, self.sum_transformed(log_slope)


class SigmoidalAutoregressive(Autoregressive):
    """z_i = f(x_i; MADE_i(x_1, ..., x_{i-1})) (equations 5 to 8); log|det| = sum log f'.

    A density is one pass of the network. The inverse takes one for each value, and solves for it.
    """

    def __init__(self, made: MADE, flow: SigmoidalFlow) -> None:
        """Makes the map.

        Args:
            made: ``(B, D)`` to ``(B, D, P)``.
            flow: The elementwise map; P is its number of parameters.
        """
        super().__init__(made)
        self.flow = flow
        self.own_kind = MapKind(inverse="numeric", inverse_passes=len(made.degrees), tolerance=TOLERANCE)

    def _map(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow(x, parameters)

    def _unmap(self, z: Tensor, parameters: Tensor) -> Tensor:
        return self.flow.inverse(z, parameters, self)[0]
