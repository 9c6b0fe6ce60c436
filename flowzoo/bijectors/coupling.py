"""Additive and affine coupling layers, and the base class that all couplings share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flowzoo.bijectors.affine import (
    AffineMap,
    AffineOrder,
    ParameterLayout,
    affine,
    affine_reverse,
    shift_and_raw,
)
from flowzoo.bijectors.base import Bijector, sum_per_item, zero_log_det
from flowzoo.bijectors.fused_coupling import CouplingStep, SettledCouplingStep
from flowzoo.bijectors.overrides import is_called, maps_are
from flowzoo.bijectors.partitions import Partition
from flowzoo.bijectors.reversal import Pull, Reversed, fresh
from flowzoo.bijectors.rows import Row, Step
from flowzoo.bijectors.scale_maps import ScaleMap
from flowzoo.nets.caching import keeps_nothing
from flowzoo.nets.derivatives import is_batched
from flowzoo.nets.kernels import Kernel
from flowzoo.nets.precision import RunsNetwork
from flowzoo.nets.rectified import RectifiedNetwork


class Coupling(Bijector, RunsNetwork):
    """One half conditions, the other is transformed elementwise (NICE, section 3.2).

    z_a = x_a,  z_b = g(x_b; net(x_a)),  log|det| = sum log |dg/dx_b|.

    A subclass writes ``_transform`` and ``_invert``: from a half and the network's output to the mapped half and
    the log-determinant ``(B,)`` of that direction, by :meth:`_sum` of the elementwise log-derivative.
    """

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
        return self._map_whole(x, context, inverse=False)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._map_whole(z, context, inverse=True)

    def _map_whole(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        conditioner, b = self.partition.split(x)
        b, log_det = self.map_half(conditioner, b, context, inverse)
        return self.partition.merge(conditioner, b), log_det

    def map_half(
        self, conditioner: Tensor, b: Tensor, context: Tensor | None, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The transformed half, mapped or taken back, and the log-determinant ``(B,)`` of that."""
        narrow = self._is_fused and not inverse
        parameters = self.run_network(self.net, conditioner, context, narrow=narrow)
        return self._invert(b, parameters) if inverse else self._transform(b, parameters)

    @property
    def _is_fused(self) -> bool:
        """Whether ``_transform`` is one operation, which widens what the network gave."""
        return False

    def _sum(self, log_derivative: Tensor) -> Tensor:
        """The log-determinant ``(B,)``, of the elements that the coupling transforms."""
        return sum_per_item(self.partition.select(log_derivative))

    def reverse(self, z: Tensor, context: Tensor | None, pull: Pull) -> Reversed:
        """One evaluation of the network serves the inversion and the gradient."""
        if not is_by_halves(self):
            return super().reverse(z, context, pull)
        conditioner, b_out = (half.detach() for half in self.partition.split(z))
        # A split is the transpose of its merge, so gradients are parted and joined as what they belong to.
        grad_direct, grad_b_out = self.partition.split(pull.grad_z)
        given, context = fresh(conditioner), None if context is None else fresh(context)
        with torch.enable_grad():
            parameters = self.run_network(self.net, given, context)
        inputs = (given,) if context is None else (given, context)
        b, grad_b, (grad_conditioner, *grad_context) = self._reverse_half(
            b_out, parameters, inputs, pull._replace(grad_z=grad_b_out)
        )
        x = self.partition.merge(conditioner, b)
        grad_x = self.partition.merge(grad_conditioner + grad_direct, grad_b)
        return Reversed(x, grad_x, *(grad_context or (None,)))

    def _reverse_half(
        self, z: Tensor, parameters: Tensor, inputs: tuple[Tensor, ...], pull: Pull
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The transformed half's input, its gradient and that of the network's inputs."""
        with torch.no_grad():
            b, _ = self._invert(z, parameters)
        with torch.enable_grad():
            x = fresh(b)
            again, log_det = self._transform(x, parameters)
        grad_x, *grad_inputs = pull.differentiate(self, again, log_det, (x, *inputs))
        return b, grad_x, tuple(grad_inputs)


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

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        step = None if context is not None else self.step(x)
        return super()._forward(x, context) if step is None else Row((step,)).run(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        step = None if context is not None else self.step(z, inverse=True)
        return super()._inverse(z, context) if step is None else Row((step,), inverse=True).run(z)

    def step(self, like: Tensor, inverse: bool = False) -> Step | None:
        """The whole coupling as one operation, if its network is convolutions and nobody watches them."""
        recorded = torch.is_grad_enabled()
        dtype = self.computed_in(like)
        kernels = None if inverse and recorded else self._kernels(like, dtype)
        if kernels is None:
            return None
        plan = kernels, dtype, self.partition, self._map(), like.shape[2:]
        # What is to be rebuilt by inversion must be what the backward pass computes again, to the last bit.
        again = not inverse and keeps_nothing()
        return CouplingStep(*plan) if recorded or again else SettledCouplingStep(*plan, inverse)

    def reverse(self, z: Tensor, context: Tensor | None, pull: Pull) -> Reversed:
        """As one operation where the coupling is one."""
        step = None if context is not None else self._reversible_step(z, pull)
        if step is None:
            return super().reverse(z, context, pull)
        x, grad_x, gradients = step.reverse(z, pull.grad_z, pull.grad_log_det)
        for tensor, gradient in zip(step.tensors, gradients, strict=True):
            if tensor.requires_grad:
                pull.sink.add(tensor, gradient)
        return Reversed(x, grad_x, None)

    def _reversible_step(self, z: Tensor, pull: Pull) -> CouplingStep | None:
        """The coupling as one operation on parameters, or on folded tensors whose gradients are gathered."""
        if not is_by_halves(self) or is_batched(pull.grad_z) or is_batched(pull.grad_log_det):
            return None
        with torch.enable_grad():
            step = self.step(z)
        if isinstance(step, CouplingStep) and all(tensor.is_leaf for tensor in step.tensors):
            return step
        return None

    def settings(self) -> tuple[object, ...]:
        """Partition, order, layout, and the name of the scale map."""
        return self.partition, self.order, self.layout, self.scale_map.name

    def _kernels(self, x: Tensor, dtype: torch.dtype) -> list[Kernel] | None:
        """The network's kernels for halves of ``x``, if the whole coupling may be one operation."""
        net = self.net
        if not isinstance(net, RectifiedNetwork) or x.ndim != 4:
            return None
        if not (self.partition.has_views and self._is_fused) or self.random_states is not None:
            return None
        return net.kernels(x, dtype)

    def _map(self) -> AffineMap:
        return AffineMap(self.scale_map, self.order, self.layout)

    @property
    def _is_fused(self) -> bool:
        own = type(self)
        overridden = (
            own._transform is not AffineCoupling._transform or own._invert is not AffineCoupling._invert
        )
        # A compiler fuses the composition itself.
        compiled = torch.compiler.is_compiling()
        return self.scale_map.is_fixed and self.partition.packs and not (overridden or compiled)

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        if self._is_fused:
            return affine(x, parameters, self._map())
        shift, scale, log_scale = self._shift_and_scale(parameters)
        z = (x + shift) * scale if self.order == "shift-scale" else torch.addcmul(shift, x, scale)
        return z, self._sum(log_scale)

    def _invert(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale, log_scale = self._shift_and_scale(parameters)
        x = z / scale - shift if self.order == "shift-scale" else (z - shift) / scale
        return x, -self._sum(log_scale)

    def _reverse_half(
        self, z: Tensor, parameters: Tensor, inputs: tuple[Tensor, ...], pull: Pull
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        if not self._is_fused:
            return super()._reverse_half(z, parameters, inputs, pull)
        found = affine_reverse(z, parameters.detach(), pull.grad_z, pull.grad_log_det, self._map())
        grad_inputs = pull.through(self, (parameters,), (found.grad_parameters,), inputs)
        return found.x, found.grad_x, grad_inputs

    def _shift_and_scale(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shift, scale and log-scale."""
        shift, raw = shift_and_raw(parameters, self.layout)
        return shift, *self.scale_map.scale(raw)


def is_by_halves(coupling: Coupling) -> bool:
    """Whether this is :meth:`Coupling.map_half` between a split and a merge, or a step that comes to the same."""
    kind: Any = type(coupling)
    owners: tuple[Any, ...] = (Coupling, AffineCoupling)
    return not is_called(coupling) and any(maps_are(kind, owner) for owner in owners)
