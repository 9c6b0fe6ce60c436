"""Convolutions with ReLUs between them where no gradients are wanted, with all that can be decided decided beforehand.

ReLUs are made part of oneDNN's convolutions. These turn NaN into 0, so that is done only where no kernel in front of
one is broken or so large that sums overflow: such a model must not give finite numbers. A NaN among a coupling's inputs
stays visible in the half that the coupling passes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.nets.kernels import Kernel, with_ones
from flowzoo.nets.products import FEW_PIXELS, convolved_by_taps, is_product, is_thin
from flowzoo.nets.relu import relu_

Layer = Callable[[Tensor], Tensor]


def settle(kernels: Sequence[Kernel]) -> Layer:
    """Merged kernels, one after the other with ReLUs between them, as a function of ``(B, C, H, W)``."""
    layers: list[Layer] = []
    last, dtype = len(kernels) - 1, kernels[0].bias.dtype
    small = all(kernel.small for kernel in kernels[:-1])
    for index, kernel in enumerate(kernels):
        edge = kernel.at_the_edge()
        fused = index < last and small and kernel.weight.is_mkldnn and edge is None
        if kernel.joined:
            layers.append(partial(with_ones, dtype=dtype))
        elif index == 0:
            layers.append(partial(_laid_out, dtype=dtype))
        layers.append(_convolution(kernel, fused))
        if edge is not None:
            layers.append(partial(_add_to_each_, edge))
        if index < last and not fused:
            layers.append(torch.relu_ if dtype == torch.float32 else relu_)

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
        convolve = torch.ops.mkldnn._convolution_pointwise
        return lambda x: convolve(x, weight, bias, pads, ones, ones, 1, then, [], "")
    if not is_product(weight):
        column = bias.view(-1, 1, 1)

        def convolve_by_taps(x: Tensor) -> Tensor:
            if is_thin(weight, len(x), x.shape[2:]):
                return convolved_by_taps(x, weight).add_(column)
            return F.conv2d(x, weight, bias, padding=padding)

        return convolve_by_taps
    matrix, channels = weight.flatten(1).t(), len(bias)

    def multiply(x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        if batch * height * width > FEW_PIXELS:
            return F.conv2d(x, weight, bias)
        rows = torch.addmm(bias, x.permute(0, 2, 3, 1).flatten(0, 2), matrix)
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)

    return multiply


def _laid_out(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` with the channels of a pixel side by side in memory."""
    # As to() does it, but sooner.
    x = x if x.dtype == dtype else x.to(dtype)
    return x.contiguous(memory_format=torch.channels_last)


def _add_to_each_(rows: Tensor, x: Tensor) -> Tensor:
    """Adds ``(H W, O)`` to every image of ``(B, O, H, W)``."""
    # Laid out as the image is.
    return x.add_(rows.view(*x.shape[2:], -1).permute(2, 0, 1))
