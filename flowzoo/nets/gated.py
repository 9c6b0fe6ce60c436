"""Gated convolutions with concatenated ELUs and layer norm over channels: the body of Flow++'s networks.

Source: Ho et al. 2019, *Flow++* (arXiv 1902.00275), appendix A; the concatenated ELU and the gate come from
Salimans et al. 2017, *PixelCNN++* (arXiv 1701.05517).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.parameters import drawn_normal

__all__ = ["ChannelLayerNorm", "GatedConv", "ScaledConv2d", "concat_elu", "gate"]


def concat_elu(x: Tensor) -> Tensor:
    """Returns ``elu([x, -x])``: an activation that keeps both signs and doubles the channels.

    Args:
        x: Features of shape ``(B, C, ...)``.

    Returns:
        Features of shape ``(B, 2C, ...)``.
    """
    return F.elu(torch.cat([x, -x], dim=1))


def gate(x: Tensor) -> Tensor:
    """Returns ``a * sigmoid(b)`` for the channel halves ``a, b``: ``(B, 2C, ...)`` to ``(B, C, ...)``."""
    a, b = x.chunk(2, dim=1)
    return a * torch.sigmoid(b)


class ScaledConv2d(DataDependentInit):
    """A convolution that keeps height and width and whose output begins with a chosen mean and scale.

    Data-dependent initialization sets weight and bias so that each output channel has mean 0 and standard
    deviation ``init_scale`` over the first batch. Before that, weights are drawn for inputs of unit variance.

    With ``weight_norm`` the kernel is ``gain * v / |v|`` with the norm over each output channel (Salimans and
    Kingma 2016, arXiv 1602.07868, equation 2).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd size of the kernel.
        weight_norm: Whether the kernel is weight-normalized.
        init_scale: Standard deviation of the output after initialization.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        weight_norm: bool = False,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.padding = kernel_size // 2
        self.init_scale = init_scale
        std = init_scale / math.sqrt(in_channels * kernel_size**2)
        self.weight = drawn_normal((out_channels, in_channels, kernel_size, kernel_size), std)
        self.gain = nn.Parameter(torch.full((out_channels,), init_scale)) if weight_norm else None
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def kernel(self) -> Tensor:
        """The kernel, ``(out_channels, in_channels, k, k)``."""
        if self.gain is None:
            return self.weight
        norm = self.weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        return self.weight * (self.gain.view(-1, 1, 1, 1) / norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        if self.wants_init():
            self._initialize(x)
        return F.conv2d(x, self.kernel(), self.bias, padding=self.padding)

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        out = F.conv2d(x, self.kernel(), padding=self.padding).double()
        var, mean = torch.var_mean(out, dim=(0, 2, 3), correction=0)
        scale = self.init_scale / torch.sqrt(var + 1e-8)
        self.bias.copy_(-mean * scale)
        if self.gain is None:
            self.weight.mul_(scale.to(self.weight.dtype).view(-1, 1, 1, 1))
        else:
            self.gain.mul_(scale.to(self.gain.dtype))
        self.mark_initialized()


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of each pixel, with a learned scale and shift for each channel.

    Args:
        channels: Number of channels C.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes ``(B, C, H, W)`` to mean 0 and variance 1 over C, then scales and shifts."""
        # With channels_last memory this permutation is free and the channels lie side by side.
        pixels = x.permute(0, 2, 3, 1)
        normal = F.layer_norm(pixels, self.weight.shape, self.weight, self.bias, self.eps)
        return normal.permute(0, 3, 1, 2)


class GatedConv(nn.Module):
    """A residual block whose update is gated: ``x + gate(conv1x1(f(conv3x3(f(x)) + proj(f(a)))))``.

    ``f`` is :func:`concat_elu`, ``a`` the optional context, ``proj`` a 1x1 convolution; dropout falls on the
    last hidden layer. The last convolution begins with a tenth of the usual scale.

    Args:
        channels: Channels C of input and output.
        context_channels: Channels of the context ``a``; 0 for none.
        kernel_size: Kernel of the second convolution (1 in Flow++'s couplings, 3 in its context network).
        dropout: Probability of dropping a hidden value while training.
        weight_norm: Whether the convolutions are weight-normalized.
        residual: Whether the update is added to ``x``, or takes its place.
    """

    def __init__(
        self,
        channels: int,
        *,
        context_channels: int = 0,
        kernel_size: int = 1,
        dropout: float = 0.0,
        weight_norm: bool = False,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.conv_in = ScaledConv2d(2 * channels, channels, 3, weight_norm=weight_norm)
        self.project = (
            ScaledConv2d(2 * context_channels, channels, 1, weight_norm=weight_norm)
            if context_channels
            else None
        )
        self.dropout = nn.Dropout(dropout)
        self.conv_out = ScaledConv2d(
            2 * channels, 2 * channels, kernel_size, weight_norm=weight_norm, init_scale=0.1
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps ``(B, C, H, W)`` to the same shape; ``context`` is ``(B, context_channels, H, W)``."""
        hidden = self.conv_in(concat_elu(x))
        if self.project is not None and context is not None:
            hidden = hidden + self.project(concat_elu(context))
        update = self.conv_out(self.dropout(concat_elu(hidden)))
        return x + gate(update) if self.residual else gate(update)
