"""f-VAE's stack: the encoder draws e, the decoder explains the image by it, a Glow-like flow is its prior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from flowzoo.bijectors import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijector,
    Chain,
    ChannelHalves,
    ConditionalPrior,
    Coupling,
    FactorOut,
    FixedAffine,
    Flatten,
    InvertibleConv1x1,
    Logit,
    MixtureLogisticCoupling,
    Permutation,
    ScaleMap,
    Squeeze,
)
from flowzoo.densities import (
    Augmentation,
    Dequantization,
    GaussianAugmentation,
    UniformDequantization,
    convolutional_dequantization,
)
from flowzoo.flow import Flow
from flowzoo.nets.conv import BiasConv2d, ConvStack
from flowzoo_fvae.bijectors import Both, DataAndExtra, SharedScaleAugmentation, SharedScaleCoupling
from flowzoo_fvae.config import FVAEConfig
from flowzoo_fvae.networks import Decoder, Encoder, FlatEncoder

MEANS = 4.0
"""The means of a mixture's components begin between minus and plus this."""


def build(config: FVAEConfig) -> Flow:
    """Builds an untrained f-VAE."""
    parts = DataAndExtra(data_shape=config.image_shape, extra_shape=config.latent_shape)
    image, latent = Flatten(config.image_shape), Flatten(config.latent_shape)
    centre = config.preprocessing == "centre"
    head = FixedAffine(scale=2.0, shift=-1.0) if centre else Logit(config.alpha)
    stack: list[Bijector] = [Both(parts, Chain(head, image), latent), _decode(config, parts)]
    for _ in range(config.rounds - 1):
        stack += [
            SharedScaleCoupling(parts, _encoder(config, config.latent_shape[0])),
            _decode(config, parts),
        ]
    prior = Chain(*_level(config, config.latent_shape, level=1))
    stack.append(Both(parts, Flatten(config.image_shape), prior))
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        dequantization=_dequantization(config),
        augmentation=_augmentation(config),
        bijector=Chain(*stack),
    )


def _dequantization(config: FVAEConfig) -> Dequantization:
    if config.dequantization == "uniform":
        return UniformDequantization()
    return convolutional_dequantization(
        config.image_shape, config.n_bits, config.dequantization_depth, config.dequantization_channels
    )


def _augmentation(config: FVAEConfig) -> Augmentation:
    """q(e|x), by the encoder."""
    channels, height, width = config.latent_shape
    size = channels * height * width
    if config.encoder_scale == "shared":
        return SharedScaleAugmentation(FlatEncoder(_encoder(config, channels, pixels=True)), size)
    return GaussianAugmentation(FlatEncoder(_encoder(config, 2 * channels, pixels=True)), size)


def _encoder(config: FVAEConfig, out_channels: int, *, pixels: bool = False) -> Encoder:
    return Encoder(
        config.image_shape[0],
        config.encoder_widths,
        out_channels,
        config.blocks,
        config.normalization,
        pixels=pixels,
    )


def _decode(config: FVAEConfig, parts: DataAndExtra) -> Bijector:
    """The image given e."""
    given, channels = parts.complement(), config.image_shape[0]
    if config.decoder == "shared":
        return SharedScaleCoupling(given, _decoder(config, channels, tanh=config.output == "tanh"))
    if config.decoder == "element":
        net = _decoder(config, 2 * channels, tanh=config.output == "tanh", start=[0.0] * (2 * channels))
        return AffineCoupling(given, net, ScaleMap("exp", channels))
    means = torch.linspace(-MEANS, MEANS, config.components, device="cpu").tolist()
    start = [0.0] * (2 + config.components) + means + [0.0] * config.components
    start = [value for value in start for _ in range(channels)]
    net = _decoder(config, (2 + 3 * config.components) * channels, start=start)
    return MixtureLogisticCoupling(given, net, channels, config.components)


def _decoder(
    config: FVAEConfig, out_channels: int, *, tanh: bool = False, start: Sequence[float] = ()
) -> Decoder:
    return Decoder(
        config.latent_shape[0],
        config.encoder_widths,
        out_channels,
        config.blocks,
        config.normalization,
        tanh_channels=config.image_shape[0] if tanh else 0,
        start=start,
    )


def _level(config: FVAEConfig, shape: tuple[int, int, int], level: int) -> list[Bijector]:
    """One level of the prior and all that follow it, for a level whose input has this shape."""
    channels, height, width = shape
    stack: list[Bijector] = []
    for index in range(config.depth):
        mixing = (
            InvertibleConv1x1(channels)
            if config.permutation == "dense"
            else Permutation.random(channels, seed=1000 * level + index)
        )
        stack += [ActNorm((channels,)), mixing, _coupling(config, channels)]
    if level == config.levels:
        return [*stack, ActNorm((channels,)), Flatten(shape)]
    kept = channels // 2
    prior = ConditionalPrior(_zero_convolution(kept, 2 * kept))
    rest = Chain(Squeeze(), *_level(config, (4 * kept, height // 2, width // 2), level + 1))
    return [*stack, FactorOut(rest, prior)]


def _coupling(config: FVAEConfig, channels: int) -> Coupling:
    half, hidden = channels // 2, config.hidden_channels
    affine = config.coupling == "affine"
    net = ConvStack(
        {
            "first": BiasConv2d(half, hidden, 3),
            "second": BiasConv2d(hidden, hidden, 1),
            "last": _zero_convolution(hidden, 2 * half if affine else half),
        }
    )
    if affine:
        return AffineCoupling(ChannelHalves(), net, ScaleMap("soft-tanh", half))
    return AdditiveCoupling(ChannelHalves(), net)


def _zero_convolution(in_channels: int, out_channels: int) -> BiasConv2d:
    found = BiasConv2d(in_channels, out_channels, 3)
    nn.init.zeros_(found.conv.weight)
    return found
