"""The networks of chrischute/flowplusplus, put into ours: gated convolutions, attention, layer norms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowzoo.convert.target import Target
from flowzoo.convert.tensors import Tensors
from flowzoo.convert.weight_norm import take_weight_norm
from flowzoo.nets.attention import GatedAttention, PositionEmbedding
from flowzoo.nets.gated import ChannelLayerNorm, GatedConv, ScaledConv2d

MAX_TIMESCALE = 10_000.0


def put_network(source: Tensors, target: Target, net: nn.Module, at: str) -> None:
    """Sets a coupling's network: projection, gated blocks, projection; and its positions.

    Args:
        source: The checkpoint.
        target: The model.
        net: Our network.
        at: The source's name of its own, without the dot at the end.
    """
    convs = target.all(ScaledConv2d, net)
    _put_conv(source, target, convs[0], f"{at}.in_conv.conv")
    _put_conv(source, target, convs[-1], f"{at}.out_conv.conv")
    gated, attentions = target.all(GatedConv, net), target.all(GatedAttention, net)
    norms = iter(target.all(ChannelLayerNorm, net))
    for index, conv in enumerate(gated):
        block = f"{at}.mid_convs.{index}"
        _put_gated(source, target, conv, f"{block}.conv")
        _put_norm(source, target, next(norms), f"{block}.norm_1")
        if attentions:
            _put_attention(source, target, attentions[index], f"{block}.attn")
            _put_norm(source, target, next(norms), f"{block}.norm_2")
    for position in target.all(PositionEmbedding, net):
        # Without attention our network adds the embedding to its input, and the source has none.
        shape = tuple(position.weight.shape)
        target.put(position, weight=sinusoid(*shape) if attentions else torch.zeros(shape))


def put_context(source: Tensors, target: Target, net: nn.Module, at: str) -> None:
    """Sets the network that looks at the image for the dequantizer; ``at`` ends without a dot."""
    project_in = target.all(ScaledConv2d, net)[0]
    shape = tuple(project_in.weight.shape)
    weight, bias = source.take(f"{at}.0.weight", *shape), source.take(f"{at}.0.bias", shape[0])
    # This one is not weight-normalized in the source: its own length makes it so.
    target.put(project_in, weight=weight, gain=weight.flatten(1).norm(dim=1), bias=bias)
    for index, conv in enumerate(target.all(GatedConv, net)):
        _put_gated(source, target, conv, f"{at}.{index + 1}")


def sinusoid(channels: int, height: int, width: int) -> Tensor:
    """Sines, then cosines, of the pixel's number in reading order over rising time scales: ``(C, H, W)``."""
    scales = channels // 2
    rates = torch.exp(
        -math.log(MAX_TIMESCALE) / max(scales - 1, 1) * torch.arange(scales, dtype=torch.float64)
    )
    angles = rates[:, None] * torch.arange(height * width, dtype=torch.float64)
    encoding = torch.zeros(channels, height * width, dtype=torch.float64)
    encoding[:scales], encoding[scales : 2 * scales] = angles.sin(), angles.cos()
    return encoding.view(channels, height, width)


def _put_conv(source: Tensors, target: Target, conv: ScaledConv2d, at: str) -> None:
    """Sets a weight-normalized convolution; a smaller kernel of the source goes to the middle of ours."""
    outputs, inputs, kernel, _ = conv.weight.shape
    own = source.size(f"{at}.weight_v", 3)
    own = own if own <= kernel and (kernel - own) % 2 == 0 else kernel
    gain, weight = take_weight_norm(source, at, outputs, inputs, own, own)
    border = (kernel - own) // 2
    weight = nn.functional.pad(weight, (border,) * 4)
    target.put(conv, weight=weight, gain=gain, bias=source.take(f"{at}.bias", outputs))


def _put_gated(source: Tensors, target: Target, conv: GatedConv, at: str) -> None:
    _put_conv(source, target, conv.conv_in, f"{at}.conv.conv")
    _put_conv(source, target, conv.conv_out, f"{at}.gate.conv")
    if conv.project is not None:
        _put_conv(source, target, conv.project, f"{at}.aux_conv.conv")


def _put_norm(source: Tensors, target: Target, norm: ChannelLayerNorm, at: str) -> None:
    channels = norm.weight.numel()
    target.put(norm, weight=source.take(f"{at}.weight", channels), bias=source.take(f"{at}.bias", channels))


def _put_attention(source: Tensors, target: Target, attention: GatedAttention, at: str) -> None:
    channels = attention.project_in.weight.shape[1]
    gain, weight = take_weight_norm(source, f"{at}.in_proj", 3 * channels, channels)
    # The source has keys, values, queries; ours are queries, keys, values.
    target.put(
        attention.project_in,
        weight=weight.roll(channels, 0),
        gain=gain.roll(channels),
        bias=torch.zeros(3 * channels),
    )
    gain, weight = take_weight_norm(source, f"{at}.gate", 2 * channels, channels)
    bias = source.take(f"{at}.gate.bias", 2 * channels)
    target.put(attention.project_out, weight=weight, gain=gain, bias=bias)
