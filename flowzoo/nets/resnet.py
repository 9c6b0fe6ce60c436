"""The residual network of RealNVP: weight-normalized convolutions, batch norm, and a skip sum to the output.

Source: Dinh et al. 2017, *Density estimation using Real NVP* (arXiv 1605.08803), sections 3.7 and 4.1, and
the released code, whose parameters this network has one for one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResidualBlock", "ResidualNetwork", "ShiftBatchNorm2d", "WeightNormConv2d"]


class WeightNormConv2d(nn.Module):
    """A convolution whose kernels are given by direction and length: ``w = g v / ||v||``, one g a kernel.

    Keeps height and width. Source: Salimans and Kingma 2016 (arXiv 1602.07868), equation 2.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel, odd.
        bias: Whether a bias is added.
        magnitude: Whether the length ``g`` is learned; if not, kernels have length 1, which is all that a
            following batch norm can see of them.
        zero: Begin with ``g = 0``, so that the output is the bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        magnitude: bool = True,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.padding = kernel_size // 2
        self.direction = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.magnitude = nn.Parameter(torch.empty(out_channels)) if magnitude else None
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.reset_parameters(zero=zero)

    def reset_parameters(self, *, zero: bool = False) -> None:
        """Draws directions uniformly and sets every length to the released code's value, or to 0."""
        bound = math.sqrt(2 / self.direction.shape[1])
        nn.init.uniform_(self.direction, -bound, bound)
        if self.magnitude is not None:
            kernel_area = self.direction.shape[2] * self.direction.shape[3]
            nn.init.constant_(self.magnitude, 0.0 if zero else math.sqrt(kernel_area / 6))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        length = torch.linalg.vector_norm(self.direction, dim=(1, 2, 3), keepdim=True)
        scale = length.reciprocal() if self.magnitude is None else self.magnitude.view(-1, 1, 1, 1) / length
        return F.conv2d(x, self.direction * scale, self.bias, padding=self.padding)


class ShiftBatchNorm2d(nn.Module):
    """Batch norm with a learned shift, and no learned scale unless asked for.

    In training mode the statistics are the batch's, and running averages follow them; in eval mode they are
    the running averages, so that an item's output does not depend on its companions.

    Args:
        channels: Number of channels.
        eps: Added to the variance; the released code of RealNVP has 1e-4.
        momentum: Weight of a new batch in the running averages.
        scale: Whether there is a learned scale, too.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, channels: int, eps: float = 1e-4, momentum: float = 0.1, *, scale: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps = eps
        self.momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes each channel of ``(B, C, H, W)``, then scales and shifts it."""
        # torch has no second derivative of a batch norm with a bias and no weight.
        weight = torch.ones_like(self.bias) if self.weight is None else self.weight
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )


def _norm(channels: int, batch_norm: bool, scale: bool) -> nn.Module:
    return ShiftBatchNorm2d(channels, scale=scale) if batch_norm else nn.Identity()


class ResidualBlock(nn.Module):
    """``x + conv(f(... conv(f(x))))`` with ``f(x) = relu(batch_norm(x))``: pre-activation, constant width.

    Args:
        channels: Channels of input and output.
        batch_norm: Whether each convolution is preceded by batch norm; without it, the inner convolutions
            have the lengths and biases that batch norm would have made useless.
        bottleneck: 1x1, 3x3 and 1x1 kernels in place of two of 3x3.
        scales: Whether batch norms have a learned scale, and all convolutions a length.
    """

    def __init__(
        self, channels: int, *, batch_norm: bool = True, bottleneck: bool = False, scales: bool = False
    ) -> None:
        super().__init__()
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        self.norms = nn.ModuleList(_norm(channels, batch_norm, scales) for _ in kernels)
        self.convs = nn.ModuleList()
        for index, kernel in enumerate(kernels):
            own_scale = not batch_norm or index == len(kernels) - 1
            self.convs.append(
                WeightNormConv2d(channels, channels, kernel, bias=own_scale, magnitude=own_scale or scales)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, H, W)`` to the same shape."""
        hidden = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            hidden = conv(F.relu(norm(hidden)))
        return x + hidden


class ResidualNetwork(nn.Module):
    """Residual blocks between a 3x3 and a 1x1 convolution, with a 1x1 skip from every block to the end.

    ``h_0 = conv3x3(x)``, ``h_i = block_i(h_{i-1})``, output ``conv1x1(relu(bn(sum_i skip_i(h_i))))``. The
    last convolution begins with length 0, so that the output is 0 and a coupling begins as the identity; the
    released code begins with random shifts instead.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        features: Width of the blocks.
        blocks: Number of residual blocks, at least 1.
        batch_norm: Whether the network has batch norm.
        bottleneck: Whether the blocks are bottlenecks; see :class:`ResidualBlock`.
        context_channels: Channels of a context of the input's height and width, joined to it; 0 for none.
        scales: Whether batch norms have a learned scale, and all convolutions a length, as torch's own layers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: int,
        blocks: int,
        *,
        batch_norm: bool = True,
        bottleneck: bool = False,
        context_channels: int = 0,
        scales: bool = False,
    ) -> None:
        super().__init__()
        self.conv_in = WeightNormConv2d(in_channels + context_channels, features, 3, magnitude=scales)
        self.blocks = nn.ModuleList(
            ResidualBlock(features, batch_norm=batch_norm, bottleneck=bottleneck, scales=scales)
            for _ in range(blocks)
        )
        self.skips = nn.ModuleList(WeightNormConv2d(features, features, 1) for _ in range(blocks + 1))
        self.norm_out = _norm(features, batch_norm, scales)
        self.conv_out = WeightNormConv2d(features, out_channels, 1, zero=True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps ``(B, in_channels, H, W)``, and a context if there is one, to ``(B, out_channels, H, W)``."""
        hidden = self.conv_in(x if context is None else torch.cat((x, context), dim=1))
        total = self.skips[0](hidden)
        for block, skip in zip(self.blocks, list(self.skips)[1:], strict=True):
            hidden = block(hidden)
            total = total + skip(hidden)
        out: Tensor = self.conv_out(F.relu(self.norm_out(total)))
        return out
