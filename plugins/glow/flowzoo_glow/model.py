"""Glow's stack of bijectors (Kingma and Dhariwal, 2018, section 3 and figure 2)."""

from __future__ import annotations

from torch import nn

from flowzoo.bijectors import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijector,
    Chain,
    ChannelHalves,
    ClassTop,
    ConditionalPrior,
    Coupling,
    FactorOut,
    FixedAffine,
    Flatten,
    InvertibleConv1x1,
    InvertibleConv1x1LU,
    LearnedTop,
    Logit,
    Permutation,
    ScaleMap,
    Squeeze,
)
from flowzoo.densities import (
    Dequantization,
    UniformDequantization,
    convolutional_dequantization,
)
from flowzoo.flow import Flow
from flowzoo.nets.conv import ZeroConv2d, conv_net
from flowzoo_glow.config import GlowConfig

# OpenAI's code stores ActNorm's log-scales divided by this.
LOG_SCALE_FACTOR = 3.0

INPUT_BOUND = 5.0
"""Bound on what networks see with ``network_input = "clamped"``; activations of data seldom exceed it."""


def build(config: GlowConfig) -> Flow:
    """Builds an untrained Glow."""
    head = FixedAffine(shift=-0.5) if config.preprocessing == "centre" else Logit(config.alpha)
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        dequantization=_dequantization(config),
        bijector=Chain(head, *_level(config, config.image_shape, level=1)),
        classes=config.classes or None,
        label_dropout=config.label_dropout,
    )


def _dequantization(config: GlowConfig) -> Dequantization:
    if config.dequantization == "uniform":
        return UniformDequantization()
    return convolutional_dequantization(
        config.image_shape, config.n_bits, config.dequantization_depth, config.dequantization_channels
    )


def _level(config: GlowConfig, shape: tuple[int, int, int], level: int) -> list[Bijector]:
    """One level and all that follow it, for a level whose input has this shape."""
    channels, height, width = 4 * shape[0], shape[1] // 2, shape[2] // 2
    stack: list[Bijector] = [Squeeze(config.squeeze_order)]
    for index in range(config.steps(level)):
        stack += _step(config, channels, seed=1000 * level + index)
    if level < config.levels:
        kept = channels // 2
        prior = None
        if config.learn_prior:
            net = ZeroConv2d(kept, 2 * (channels - kept), edge_bias=config.edge_bias)
            prior = ConditionalPrior(net, config.layout, _input_bound(config))
        rest = Chain(*_level(config, (kept, height, width), level + 1))
        return [*stack, FactorOut(rest, prior)]
    if config.learn_top != "none":
        element = config.learn_top == "element"
        shape = (channels, height, width) if element else (channels, 1, 1)
        stack.append(ClassTop(shape, config.classes) if config.classes else LearnedTop(shape))
    return [*stack, Flatten((channels, height, width))]


def _step(config: GlowConfig, channels: int, seed: int) -> list[Bijector]:
    """ActNorm, permutation, coupling."""
    actnorm = ActNorm((channels,), LOG_SCALE_FACTOR) if config.actnorm else None
    mixing: list[Bijector]
    if config.permutation in ("dense", "lu"):
        convolution = InvertibleConv1x1 if config.permutation == "dense" else InvertibleConv1x1LU
        mixing = [convolution(channels, actnorm)]
    else:
        fixed = (
            Permutation.reversal(channels)
            if config.permutation == "reverse"
            else Permutation.random(channels, seed)
        )
        mixing = [fixed] if actnorm is None else [actnorm, fixed]
    return [*mixing, _coupling(config, channels)]


def _input_bound(config: GlowConfig) -> float | None:
    return INPUT_BOUND if config.network_input == "clamped" else None


def _coupling(config: GlowConfig, channels: int) -> Bijector:
    partition = ChannelHalves(swap=config.transformed_half == "first")
    kept, changed = (channels + 1) // 2, channels // 2
    if partition.swap:
        kept, changed = changed, kept
    affine = config.coupling == "affine"
    net = conv_net(
        kept,
        2 * changed if affine else changed,
        config.hidden_channels,
        normalization=config.net_normalization,
        edge_bias=config.edge_bias,
        rectified_input=config.network_input == "rectified",
    )
    bound = _input_bound(config)
    if bound is not None:
        net.rectify = nn.Hardtanh(-bound, bound)
    coupling: Coupling
    if affine:
        scale_map = ScaleMap(config.scale_map, changed)
        coupling = AffineCoupling(partition, net, scale_map, config.order, config.layout)
    else:
        coupling = AdditiveCoupling(partition, net)
    coupling.takes_context = False  # labels condition the top alone
    return coupling
