"""Convolutional networks in integer arithmetic that is exact in any order of summation.

Weights and activations are integers held in float64, and a convolution is a matrix product of them. A sum of integers
below 2^53 in size is exact in float64, whatever the order, the number of threads, the vector unit or the library that
adds it up; the bound is checked when a network is made. Products as sums of other numbers (Winograd, FFT) would not
be, so that no library's convolution is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.codec.tables import FRACTION_BITS
from flowzoo.errors import ConfigError

EXACT_BELOW = 2**53
"""Every integer up to this size is a float64."""

WEIGHT_BITS = 15
"""Bits of a weight beside its sign."""

MOST_WEIGHT_FRACTION = 30

MatMul = Callable[[Tensor, Tensor], Tensor]


class IntegerConv:
    """A convolution with a bias: integers to integers, both in units of 2^-16.

    Attributes:
        weight: ``(O, I k k)`` float64, integers of at most 15 bits and a sign, in units of 2^-shift.
        bias: ``(O, 1)`` float64, integers in units of 2^-(shift + 16).
        shift: Fraction bits of the weights.
    """

    def __init__(self, conv: nn.Conv2d, input_limit: int) -> None:
        """Rounds a convolution's parameters.

        Args:
            conv: Stride 1, odd square kernel, zero padding that keeps the size.
            input_limit: Largest absolute input in units of 2^-16.

        Raises:
            ConfigError: A weight is not finite or too large, or sums could exceed 2^53.
        """
        weight = conv.weight.detach().to("cpu", torch.float64).flatten(1)
        zeros = torch.zeros(len(weight), dtype=torch.float64)
        bias = zeros if conv.bias is None else conv.bias.detach().to("cpu", torch.float64)
        self.kernel = int(conv.kernel_size[0])
        self.shift = _fraction_bits(weight)
        self.weight = torch.round(weight * 2.0**self.shift)
        self.bias = torch.round(bias * 2.0 ** (self.shift + FRACTION_BITS))[:, None]
        largest = self.weight.abs().sum(1).max() * input_limit + self.bias.abs().max() + 2.0**self.shift
        if not torch.isfinite(largest) or float(largest) >= EXACT_BELOW:
            raise ConfigError(
                f"a layer of {self.weight.shape[1]} inputs up to {input_limit} gives sums up to {float(largest):.3g}, "
                "which integers in float64 (below 2^53) do not hold; this model cannot be used for compression."
            )

    def __call__(self, x: Tensor, matmul: MatMul = torch.matmul) -> Tensor:
        """``(B, I, H, W)`` float64 integers to ``(B, O, H, W)``: floor((w x + b) / 2^shift + 1/2)."""
        sums = matmul(self.weight, _columns(x, self.kernel)) + self.bias
        # Both a product by a power of two and floor are exact.
        out = torch.floor((sums + 2.0 ** (self.shift - 1)) * 2.0**-self.shift)
        return out.view(len(x), -1, *x.shape[2:])


class IntegerNetwork:
    """Convolutions with clipped ReLUs between them, as integers."""

    def __init__(
        self, convolutions: Sequence[nn.Conv2d], *, input_limit: float, activation_limit: float
    ) -> None:
        """Rounds a network.

        Args:
            convolutions: Its layers in their order, a ReLU clipped at ``activation_limit`` between two.
            input_limit: Largest absolute value of the network's input.
            activation_limit: Where activations are clipped.

        Raises:
            ConfigError: Its sums could exceed 2^53.
        """
        self.activation_limit = float(activation_limit) * 2**FRACTION_BITS
        limits = [int(input_limit * 2**FRACTION_BITS)] + [int(self.activation_limit)] * (
            len(convolutions) - 1
        )
        self.layers = [IntegerConv(conv, limit) for conv, limit in zip(convolutions, limits, strict=True)]
        self.matmul: MatMul = torch.matmul

    def __call__(self, x: Tensor, batch_size: int) -> Tensor:
        """Integers in units of 2^-16 ``(B, I, H, W)`` to the same ``(B, O, H, W)``, both int64.

        Args:
            x: The input.
            batch_size: Items that are computed at a time; the result does not depend on it.
        """
        return torch.cat([self._batch(part) for part in x.split(batch_size)])

    def _batch(self, x: Tensor) -> Tensor:
        values = x.to(torch.float64)
        for layer in self.layers[:-1]:
            values = layer(values, self.matmul).clamp_(0, self.activation_limit)
        return self.layers[-1](values, self.matmul).to(torch.int64)


def _columns(x: Tensor, kernel: int) -> Tensor:
    """The neighbourhoods of all pixels: ``(B, I, H, W)`` to ``(B, I k k, H W)``, contiguous."""
    if kernel == 1:
        return x.flatten(2).contiguous()
    height, width = x.shape[2:]
    padded = F.pad(x, (kernel // 2,) * 4)
    shifted = [padded[:, :, i : i + height, j : j + width] for i in range(kernel) for j in range(kernel)]
    return torch.stack(shifted, dim=2).flatten(1, 2).flatten(2)


def _fraction_bits(weight: Tensor) -> int:
    """The most fraction bits with which every weight has 15 bits."""
    largest = float(weight.abs().max())
    bits = MOST_WEIGHT_FRACTION
    while bits > 0 and largest * 2.0**bits > 2**WEIGHT_BITS:
        bits -= 1
    return bits
