"""Autoregressive bijectors: each value is mapped given those before it, which a MADE looks at."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flowzoo.bijectors.base import Bijector, sum_per_item
from flowzoo.bijectors.kinds import MapKind
from flowzoo.bijectors.numeric import require_converged
from flowzoo.bijectors.wanted import log_det_wanted, unknown_log_det
from flowzoo.nets.made import MADE, Incremental
from flowzoo.nets.precision import RunsNetwork

Sampler = Literal["sequential", "jacobi"]

JACOBI_TOLERANCE = 1e-5
"""The largest change, relative to a value or to 1, at which Jacobi iterations have converged, in float32."""


class Autoregressive(Bijector, RunsNetwork):
    """z_i = g(x_i; h_i(x_1 .. x_(i-1))), log|det| = sum log dg/dx_i (Papamakarios et al., 2017, section 3.1), h a MADE.

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
            tolerance=JACOBI_TOLERANCE if numeric else None,
        )

    def _map(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Z and log dz/dx of values x under parameters ``(*x.shape, P)``."""
        raise NotImplementedError

    def _unmap(self, z: Tensor, parameters: Tensor) -> Tensor:
        """The inverse of :meth:`_map`."""
        raise NotImplementedError

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_derivative = self._map(x, self.run_network(self.made, x, None))
        return z, sum_per_item(log_derivative)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            x = self._with_gradients(z)
        elif self.sampler == "jacobi":
            x = self._jacobi(z)
        else:
            x = self._one_by_one(z)
        if not log_det_wanted():
            return x, unknown_log_det(z)
        _, log_derivative = self._map(x, self.run_network(self.made, x, None))
        return x, -sum_per_item(log_derivative)

    def _one_by_one(self, z: Tensor) -> Tensor:
        """Each value once, each hidden unit once."""
        state, order = Incremental(self.made, len(z)), self.made.order
        x = torch.empty_like(z)
        for place, where in enumerate(order.tolist()):
            value = self._unmap(z[:, where], state.parameters(place))
            state.add(place, value)
            x[:, where] = value
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
        tolerance = JACOBI_TOLERANCE if z.dtype == torch.float32 else 1e-12
        x, change = torch.zeros_like(z), torch.full_like(z, torch.inf)
        for _ in range(z.shape[1] + 1):
            again = self._unmap(z, self.made(x))
            change = (again - x) / again.abs().clamp(min=1)
            x = again
            if bool((change.abs() <= tolerance).all()):
                break
        require_converged(self, change, tolerance)
        return x
