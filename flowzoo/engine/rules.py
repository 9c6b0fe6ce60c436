"""Lowering of bijectors, by exact type: a subclass has no rule and simply runs plainly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.chain import Chain
from flowzoo.bijectors.coupling import AdditiveCoupling, AffineCoupling, Coupling
from flowzoo.bijectors.linear import InvertibleConv1x1, InvertibleConv1x1LU
from flowzoo.bijectors.mixture import MixtureLogisticCoupling
from flowzoo.bijectors.multiscale import FactorOut
from flowzoo.bijectors.normalization import ActNorm
from flowzoo.bijectors.partitions import ChannelHalves
from flowzoo.bijectors.scale_maps import ScaleMap
from flowzoo.engine.networks import FOLDED, is_convolutional, kernels_of_layers, merged_kernels
from flowzoo.engine.values import MIXING, Frozen, Values
from flowzoo.nets.conv import ConvStack
from flowzoo.ops.affine import AffineMap, affine, affine_inverse
from flowzoo.ops.coupling_step import CouplingStep, FrozenCouplingStep, Halves
from flowzoo.ops.kernels import are_many
from flowzoo.ops.mixture import mixture_inverse, mixture_map
from flowzoo.ops.pixel_step import PixelMap, PixelStep
from flowzoo.ops.rows import Step
from flowzoo.ops.scales import OFFSETS


class Call(NamedTuple):
    """The facts of one call that the parts of a plan need."""

    values: Values
    frozen: Frozen | None
    inverse: bool
    recorded: bool


class Rule(NamedTuple):
    """How bijectors of one type are lowered.

    Attributes:
        settings: The plain attributes that the lowering depends on; part of the key of plans.
        is_step: Whether this bijector can be a step of a row.
        step: The step, for one call.
        mapped: The transformed half of a coupling, ``(coupling, half, parameters, inverse)`` to the half and log_det.
    """

    settings: Callable[[Any], tuple[object, ...]] = lambda _: ()
    is_step: Callable[[Any], bool] = lambda _: False
    step: Callable[[Any, Tensor, Call], Step] | None = None
    mapped: Callable[[Any, Tensor, Tensor, bool], tuple[Tensor, Tensor]] | None = None


# --- 1x1 convolutions -----------------------------------------------------------------------------------------------


def _is_pixel_step(layer: InvertibleConv1x1) -> bool:
    actnorm = layer.actnorm
    return actnorm is None or (type(actnorm) is ActNorm and actnorm.bias.ndim == 1)


def _pixel_step(layer: InvertibleConv1x1, like: Tensor, call: Call) -> Step:
    log_det, matrix, *bias = call.values.of(layer, MIXING)

    def inverse() -> PixelMap:
        back, *shift = call.values.inverse_of(layer)
        return PixelMap(-log_det, back, shift[0] if shift else None)

    if call.inverse:
        return PixelStep(inverse())
    return PixelStep(PixelMap(log_det, matrix, bias[0] if bias else None), inverse)


# --- couplings ------------------------------------------------------------------------------------------------------


def _map_of(coupling: AffineCoupling) -> AffineMap | None:
    """The elementwise map as one operation, if nothing in it is learned."""
    scale_map = coupling.scale_map
    if type(scale_map) is not ScaleMap or scale_map.name not in OFFSETS or not coupling.partition.packs:
        return None
    return AffineMap(scale_map.name, coupling.order, coupling.layout)


def _is_coupling_step(coupling: AffineCoupling) -> bool:
    return (
        type(coupling.partition) is ChannelHalves
        and _map_of(coupling) is not None
        and is_convolutional(coupling.net)
        and type(coupling.net.rectify) in (type(None), nn.Hardtanh)
    )


def _coupling_step(coupling: AffineCoupling, like: Tensor, call: Call) -> Step:
    net, elementwise, size = coupling.net, _map_of(coupling), like.shape[2:]
    assert isinstance(net, ConvStack)
    assert elementwise is not None
    dtype = coupling.network_dtype or like.dtype
    dtype = like.dtype if like.dtype == torch.float64 else dtype
    halves = Halves(coupling.partition.swap, (like.shape[1] + 1) // 2)
    clamp = net.rectify
    bounds = (clamp.min_val, clamp.max_val) if isinstance(clamp, nn.Hardtanh) else None
    if call.recorded:
        kernels = kernels_of_layers(net.layers(), call.values, size)
        return CouplingStep(kernels, dtype, halves, elementwise, size, coupling._transform, bounds)

    def make() -> Step:
        kernels = merged_kernels(net.layers(), call.values, like, dtype, pack=call.frozen is not None)
        return FrozenCouplingStep(kernels, dtype, halves, elementwise, size, call.inverse, bounds)

    if call.frozen is None:
        return make()
    return call.frozen.get((id(coupling), call.inverse, size, dtype, are_many(like)), make)


def _affine(coupling: AffineCoupling, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    elementwise = _map_of(coupling)
    if elementwise is None or (inverse and torch.is_grad_enabled()):
        return _plainly(coupling, x, parameters, inverse)
    if inverse:
        return affine_inverse(x, parameters, elementwise)
    return affine(x, parameters, elementwise, coupling._transform)


def _mixture(
    coupling: MixtureLogisticCoupling, x: Tensor, parameters: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:
    if (
        coupling.scale_map is not None
        or not coupling.partition.packs
        or (inverse and torch.is_grad_enabled())
    ):
        return _plainly(coupling, x, parameters, inverse)
    coupling.check_parameters(parameters)
    if inverse:
        return mixture_inverse(x, parameters, coupling.components, coupling.order)
    return mixture_map(x, parameters, coupling.components, coupling.order, coupling._transform)


def _plainly(coupling: Coupling, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    parameters = parameters.to(x.dtype)
    return coupling._invert(x, parameters) if inverse else coupling._transform(x, parameters)


RULES: Mapping[type[Bijector], Rule] = {
    Chain: Rule(settings=lambda c: (c.memory,)),
    FactorOut: Rule(),
    ActNorm: Rule(settings=lambda a: (a.log_scale_factor,)),
    InvertibleConv1x1: Rule(is_step=_is_pixel_step, step=_pixel_step),
    InvertibleConv1x1LU: Rule(is_step=_is_pixel_step, step=_pixel_step),
    AdditiveCoupling: Rule(settings=lambda c: (c.partition, c.network_dtype), mapped=_plainly),
    AffineCoupling: Rule(
        settings=lambda c: (c.partition, c.network_dtype, c.order, c.layout, c.scale_map.name),
        is_step=_is_coupling_step,
        step=_coupling_step,
        mapped=_affine,
    ),
    MixtureLogisticCoupling: Rule(
        settings=lambda c: (c.partition, c.network_dtype, c.order, c.components), mapped=_mixture
    ),
}
"""The rules, by exact type."""


def mapped(coupling: Any, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """The transformed half of any coupling, by its rule if there is one."""
    rule = RULES.get(type(coupling))
    if rule is None or rule.mapped is None:
        return _plainly(coupling, x, parameters, inverse)
    return rule.mapped(coupling, x, parameters, inverse)


def _settings_of(kind: type, rule: Rule) -> Callable[[Any], tuple[object, ...]]:
    if not issubclass(kind, Coupling):
        return rule.settings
    return lambda coupling: (coupling.takes_context, *rule.settings(coupling))


SETTINGS: dict[type, Callable[[Any], tuple[object, ...]]] = {
    **{kind: _settings_of(kind, rule) for kind, rule in RULES.items()},
    **dict.fromkeys(FOLDED, lambda layer: (layer.log_scale_factor,)),
    nn.Hardtanh: lambda clamp: (clamp.min_val, clamp.max_val),
}
"""The settings of all types that are lowered, for the key of plans."""

__all__ = ["RULES", "SETTINGS", "Call", "Rule", "mapped"]
