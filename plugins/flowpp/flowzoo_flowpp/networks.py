"""The networks inside Flow++: one for a coupling's parameters, one for the dequantizer's context."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.bijectors import Partition
from flowzoo.nets.attention import GatedAttention, PositionEmbedding
from flowzoo.nets.conv import ConvStack
from flowzoo.nets.gated import ChannelLayerNorm, GatedConv, ScaledConv2d, concat_elu
from flowzoo.nets.layout import channels_last

__all__ = ["ContextNetwork", "GatedBlock", "GatedNetwork", "PriorNetwork", "conv_network"]

OUTPUT_SCALE = 0.1
"""Standard deviation of the coupling parameters after initialization: couplings begin near the identity."""

MAX_LOG_SCALE = 5.0
"""Bound on the log-scale of a conditional prior."""


class GatedBlock(nn.Module):
    """Gated convolution, then gated self-attention, each followed by layer norm over channels.

    Args:
        channels: Channels C.
        heads: Heads of the attention; 0 leaves it out.
        context_channels: Channels of the context; 0 for none.
        kernel_size: Kernel of the gated convolution's second layer.
        norm: Whether the layer norms are there.
        dropout: Dropout probability while training.
        weight_norm: Whether convolutions and projections are weight-normalized.
        residual: Whether the gated convolution adds to its input, or takes its place.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        context_channels: int = 0,
        kernel_size: int = 1,
        norm: bool = True,
        dropout: float = 0.0,
        weight_norm: bool = False,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.conv = GatedConv(
            channels,
            context_channels=context_channels,
            kernel_size=kernel_size,
            dropout=dropout,
            weight_norm=weight_norm,
            residual=residual,
        )
        self.conv_norm = ChannelLayerNorm(channels) if norm else nn.Identity()
        self.attention = (
            GatedAttention(channels, heads, dropout=dropout, weight_norm=weight_norm) if heads else None
        )
        self.attention_norm = ChannelLayerNorm(channels) if heads and norm else nn.Identity()

    def forward(self, x: Tensor, context: Tensor | None, position: Tensor | None) -> Tensor:
        """Maps ``(B, C, H, W)`` to the same shape."""
        x = self.conv_norm(self.conv(x, context))
        if self.attention is None:
            return x
        out: Tensor = self.attention_norm(self.attention(x, position))
        return out


class GatedNetwork(nn.Module):
    """The coupling network of the paper: projection, gated blocks, projection.

    The blocks' attention adds a learned position embedding to what it reads. Without attention the embedding
    joins the projected input: the official ImageNet 64 dequantizer holds such an embedding and never reads
    it, and a parameter that nothing reads is worth nothing.

    Args:
        half: (C, H, W) of the half that conditions.
        out_channels: Channels of the coupling parameters.
        filters: Channels of the blocks.
        blocks: Number of blocks.
        heads: Heads of the attention in each block; 0 for none.
        context_channels: Channels of the context; 0 for none.
        output_activation: Whether a concatenated ELU precedes the last convolution.
        dropout: Dropout probability while training.
        weight_norm: Whether convolutions and projections are weight-normalized.
    """

    def __init__(
        self,
        half: tuple[int, int, int],
        out_channels: int,
        *,
        filters: int,
        blocks: int,
        heads: int,
        context_channels: int = 0,
        output_activation: bool = True,
        dropout: float = 0.0,
        weight_norm: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width = half
        self.attends = heads > 0 and blocks > 0
        self.output_activation = output_activation
        self.position = PositionEmbedding(filters, height, width)
        self.project_in = ScaledConv2d(channels, filters, 3, weight_norm=weight_norm)
        self.blocks = nn.ModuleList(
            GatedBlock(
                filters,
                heads=heads,
                context_channels=context_channels,
                dropout=dropout,
                weight_norm=weight_norm,
            )
            for _ in range(blocks)
        )
        self.project_out = ScaledConv2d(
            filters * (2 if output_activation else 1),
            out_channels,
            3,
            weight_norm=weight_norm,
            init_scale=OUTPUT_SCALE,
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps ``(B, C, H, W)`` to the coupling parameters ``(B, out_channels, H, W)``."""
        position = self.position()
        # Of a single channel a convolution cannot tell the layout.
        x = channels_last(self.project_in(channels_last(x)))
        if not self.attends:
            x = x + position
        for block in self.blocks:
            x = block(x, context, position)
        if self.output_activation:
            x = concat_elu(x)
        out: Tensor = self.project_out(x)
        return out


def conv_network(
    channels: int, out_channels: int, *, filters: int, context_channels: int = 0, dropout: float = 0.0
) -> ConvStack:
    """Makes conv3x3, conv1x1, conv3x3 with ReLU between: Glow's coupling network, cheap on a CPU.

    Args:
        channels: Channels of the half that conditions.
        out_channels: Channels of the coupling parameters.
        filters: Channels of the hidden layers.
        context_channels: Channels of the context, which joins the input; 0 for none.
        dropout: Dropout probability while training.
    """
    layers = {
        "conv_in": ScaledConv2d(channels + context_channels, filters, 3),
        "conv_hidden": ScaledConv2d(filters, filters, 1),
        "conv_out": ScaledConv2d(filters, out_channels, 3, init_scale=OUTPUT_SCALE),
    }
    return ConvStack(layers, dropout=dropout)


class PriorNetwork(nn.Module):
    """Mean and log-scale of what is factored out, from what is kept.

    The log-scale is bounded to (-5, 5) by a tanh: unbounded, a single odd image can blow a training run up.

    Args:
        channels: Channels of either half.
        filters: Channels of the hidden layers.
    """

    def __init__(self, channels: int, *, filters: int) -> None:
        super().__init__()
        self.net = conv_network(channels, 2 * channels, filters=filters)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps the kept half ``(B, C, H, W)`` to means and log-scales ``(B, 2C, H, W)``."""
        mean, raw = self.net(x, context).chunk(2, dim=1)
        return torch.cat([mean, MAX_LOG_SCALE * torch.tanh(raw / MAX_LOG_SCALE)], dim=1)


class ContextNetwork(nn.Module):
    """The image as the dequantizer's couplings see it: features at the resolution of their halves.

    Args:
        image_shape: (C, H, W) of the image.
        squeezes: How many 2x2 squeezes precede the couplings.
        partition: Partition of the couplings; both halves are stacked, so that no pixel is hidden.
        half: Height and width of a half.
        channels: Channels of the context.
        blocks: Number of gated blocks.
        heads: Heads of the attention in each; 0 for none.
        norm: Whether layer norm follows each.
        dropout: Dropout probability while training.
        weight_norm: Whether convolutions and projections are weight-normalized.
        residual: Whether the gated blocks add to their input, or take its place.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        squeezes: int,
        partition: Partition,
        half: tuple[int, int],
        channels: int,
        blocks: int,
        heads: int,
        norm: bool,
        dropout: float = 0.0,
        weight_norm: bool = False,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.squeeze = 2**squeezes
        self.partition = partition
        stacked = math.prod(image_shape) // math.prod(half)
        self.position = PositionEmbedding(channels, *half) if heads and blocks else None
        self.project_in = ScaledConv2d(stacked, channels, 3, weight_norm=weight_norm)
        self.blocks = nn.ModuleList(
            GatedBlock(
                channels,
                heads=heads,
                kernel_size=3,
                norm=norm,
                dropout=dropout,
                weight_norm=weight_norm,
                residual=residual,
            )
            for _ in range(blocks)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps images ``(B, C, H, W)`` in [-1/2, 1/2] to features ``(B, channels, H', W')``."""
        halves = self.partition.split(F.pixel_unshuffle(x, self.squeeze))
        x = channels_last(self.project_in(channels_last(torch.cat(halves, dim=1))))
        position = None if self.position is None else self.position()
        for block in self.blocks:
            x = block(x, None, position)
        return x
