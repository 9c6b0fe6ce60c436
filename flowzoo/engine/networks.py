"""Lowering of networks: plain modules to the tensor functions of ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flowzoo.engine.values import CONV, Frozen, Values, has_indicator
from flowzoo.nets.conv import ActNormConv2d, BiasConv2d, ConvStack, EdgeBiasConv2d, FoldedConv2d, ZeroConv2d
from flowzoo.nets.gated import ScaledConv2d
from flowzoo.nets.mlp import MLP
from flowzoo.ops.conv_stack import convolutions
from flowzoo.ops.frozen_stack import specialise
from flowzoo.ops.kernels import Kernel, are_many, outside_taps
from flowzoo.ops.linears import linears

FOLDED = (FoldedConv2d, ActNormConv2d, BiasConv2d, ZeroConv2d)
"""Layers that are folded, by exact type."""


NETWORKS = (ConvStack, MLP, EdgeBiasConv2d, ScaledConv2d, *FOLDED)
"""All types that are lowered, by exact type."""


def is_lowerable(layer: nn.Module) -> bool:
    """Whether a layer is one of those that come to a :class:`Kernel`."""
    if type(layer) is nn.Conv2d:
        size = layer.kernel_size[0]
        same = (layer.padding, layer.stride, layer.dilation, layer.groups) == (
            (size // 2,) * 2,
            (1, 1),
            (1, 1),
            1,
        )
        return (
            same
            and layer.kernel_size == (size, size)
            and layer.bias is not None
            and layer.padding_mode == "zeros"
        )
    return type(layer) in (*FOLDED, ScaledConv2d)


def is_convolutional(net: nn.Module) -> bool:
    """Whether a network is convolutions with ReLUs between them alone, none of its values dropped."""
    if type(net) is not ConvStack or (net.dropout.training and net.dropout.p > 0):
        return False
    return all(map(is_lowerable, net.layers()))


def kernels_of_layers(layers: Sequence[nn.Module], values: Values, size: torch.Size) -> list[Kernel]:
    """The kernels of layers that are lowerable, for images of this ``(H, W)``."""
    return [_kernel(layer, values, size) for layer in layers]


def _kernel(layer: nn.Module, values: Values, size: torch.Size) -> Kernel:
    if isinstance(layer, nn.Conv2d):
        assert layer.bias is not None
        return Kernel(layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)
    if isinstance(layer, ScaledConv2d):
        return Kernel(layer.kernel(), layer.bias, padding=layer.padding)
    assert isinstance(layer, FoldedConv2d)
    conv = layer.conv
    bias, *others = values.of(layer, CONV)
    scale = others.pop(0) if layer.log_scale is not None and layer.log_scale_factor is not None else None
    if not others:
        return Kernel(conv.weight, bias, scale, padding=conv.padding)
    (edge,) = others
    if has_indicator(layer):
        return Kernel(conv.weight, bias, scale, ones=edge, padding=conv.padding)
    outside = outside_taps(size, conv.weight.shape[-1], edge.dtype, edge.device)
    return Kernel(conv.weight, bias, scale, edge, None, outside, conv.padding)


def merged_kernels(
    layers: Sequence[nn.Module], values: Values, x: Tensor, dtype: torch.dtype, *, pack: bool
) -> list[Kernel]:
    """The kernels of layers without gradients, merged in ``dtype`` and packed if they are used again."""
    size = x.shape[2:]
    found = [kernel.merged(dtype) for kernel in kernels_of_layers(layers, values, size)]
    return [kernel.packed(len(x), size) for kernel in found] if pack else found


class Accelerator:
    """Computes the networks of one call; see :mod:`flowzoo.nets.accelerate`."""

    def __init__(self, values: Values, frozen: Frozen | None) -> None:
        self.values = values
        self.frozen = frozen

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor | None:
        """The output of a network, or None if it is none of those that are known here."""
        if type(module) is MLP:
            return self._linears(module, x)
        if x.ndim != 4:
            return None
        if is_convolutional(module):
            assert isinstance(module, ConvStack)
            return self._convolutions(module, module.layers(), x)
        return self._convolutions(module, [module], x) if type(module) in FOLDED else None

    def _convolutions(self, module: nn.Module, layers: Sequence[nn.Module], x: Tensor) -> Tensor:
        dtype = autocast_dtype(x)
        if torch.is_grad_enabled():
            return convolutions(x, kernels_of_layers(layers, self.values, x.shape[2:]), dtype)

        def make(pack: bool) -> Callable[[Tensor], Tensor]:
            return specialise(merged_kernels(layers, self.values, x, dtype, pack=pack))

        if self.frozen is None:
            return make(False)(x)
        return self.frozen.get((id(module), x.shape[2:], dtype, are_many(x)), lambda: make(True))(x)

    @staticmethod
    def _linears(net: MLP, x: Tensor) -> Tensor | None:
        if x.device.type != "cpu" or x.ndim != 2 or torch.is_autocast_enabled("cpu"):
            return None
        layers = [layer for layer in net.layers if type(layer) is nn.Linear and layer.bias is not None]
        if len(layers) != len(net.layers):
            return None
        return linears(x, [layer.weight for layer in layers], [layer.bias for layer in layers])


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which networks compute this: its own, or autocast's."""
    device = x.device.type
    if x.dtype == torch.float64 or device == "meta" or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)
