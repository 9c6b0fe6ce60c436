"""Convolutions with ReLUs between them where no gradients are wanted, specialised once for many batches.

ReLUs can be made part of oneDNN's convolutions. These turn NaN into 0, and a broken model must not give finite numbers,
so that is done only where no kernel in front of one is broken or so large that sums overflow, and where a NaN among the
inputs stays visible elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from flowzoo.ops.kernels import Kernel, add_to_each_, with_ones
from flowzoo.ops.products import FEW_PIXELS, convolved, is_product, multiplied
from flowzoo.ops.relu import relu_

Layer = Callable[[Tensor], Tensor]


def specialise(kernels: Sequence[Kernel], input_is_kept: bool = False) -> Layer:
    """Merged kernels, one after the other with ReLUs between them, as a function of ``(B, C, H, W)``.

    Args:
        kernels: Merged kernels, packed or not.
        input_is_kept: Whether a NaN in the input shows without the network, as in the half that a coupling passes on.
    """
    layers: list[Layer] = []
    last, dtype = len(kernels) - 1, kernels[0].bias.dtype
    fusible = input_is_kept and all(kernel.small for kernel in kernels[:-1])
    for index, kernel in enumerate(kernels):
        edge = kernel.at_the_edge()
        fused = index < last and fusible and kernel.weight.is_mkldnn and edge is None
        if kernel.joined:
            layers.append(partial(with_ones, dtype=dtype))
        elif index == 0:
            layers.append(partial(_laid_out, dtype=dtype))
        layers.append(_convolution(kernel, fused))
        if edge is not None:
            layers.append(partial(add_to_each_, edge))
        if index < last and not fused:
            layers.append(relu_)

    def network(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    return network


def _convolution(kernel: Kernel, rectified: bool) -> Layer:
    """The convolution with a kernel, and with a ReLU behind it if it is packed and that is wanted."""
    weight, bias, padding = kernel.weight, kernel.bias, kernel.padding
    if weight.is_mkldnn:
        pads, ones, then = [padding] * 2, [1, 1], "relu" if rectified else "none"
        packed = torch.ops.mkldnn._convolution_pointwise
        return lambda x: packed(x, weight, bias, pads, ones, ones, 1, then, [], "")
    if not is_product(weight):
        return lambda x: convolved(x, weight, bias, padding)
    # What few pixels are multiplied by is made once.
    matrix, most = weight.flatten(1).t(), FEW_PIXELS * weight.shape[1]
    return lambda x: multiplied(x, matrix, bias) if x.numel() <= most else convolved(x, weight, bias, padding)


def _laid_out(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` with the channels of a pixel side by side in memory."""
    # As to() does it, but sooner.
    x = x if x.dtype == dtype else x.to(dtype)
    return x.contiguous(memory_format=torch.channels_last)
