"""Builds a RealNVP model from its config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from flowzoo.bijectors import (
    ActNorm,
    AffineCoupling,
    Bijector,
    Chain,
    ChannelHalves,
    Checkerboard,
    FactorOut,
    Flatten,
    FlowBatchNorm,
    Inverse,
    Logit,
    MaskedCheckerboard,
    Partition,
    ScaleMap,
    Squeeze,
)
from flowzoo.densities import Dequantization, UniformDequantization, squeezed_dequantization
from flowzoo.flow import Flow
from flowzoo_realnvp.config import RealNVPConfig, Scale
from flowzoo_realnvp.networks import CouplingNetwork, ImageContext

__all__ = ["build"]


def build(config: RealNVPConfig) -> Flow:
    """Builds the flow: logit, then the scales, each inside the factor-out of the one before it."""
    stages: list[Bijector] = [Logit(config.logit_alpha)]
    stages += [Squeeze(config.squeeze) for _ in range(config.initial_squeezes)]
    rest: Chain | None = None
    for scale in reversed(config.stack()):
        rest = _scale(config, scale, rest)
    assert rest is not None
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        bijector=Chain(*stages, *_members(rest)),
        dequantization=_dequantization(config),
    )


def _members(chain: Chain) -> Iterator[Bijector]:
    for bijector in chain.bijectors:
        assert isinstance(bijector, Bijector)
        yield bijector


def _scale(config: RealNVPConfig, scale: Scale, rest: Bijector | None) -> Chain:
    """One scale and, through its factor-out, all that follow it: ``(B, C, H, W)`` to ``(B, C H W)``."""
    if scale.last or rest is None:
        return Chain(*_checkerboards(config, scale, config.final_couplings), Flatten(scale.shape))
    return Chain(
        *_checkerboards(config, scale, config.checkerboard_couplings),
        *_channel_couplings(config, scale),
        FactorOut(rest),
    )


def _checkerboards(config: RealNVPConfig, scale: Scale, number: int) -> Iterator[Bijector]:
    """Couplings between the colours of a checkerboard."""
    channels = scale.shape[0]
    masked = config.checkerboard == "masked"
    for index in range(number):
        swap = _swap(config, index)
        partition = MaskedCheckerboard(swap) if masked else Checkerboard(swap)
        mask: Literal["even", "odd"] | None = ("odd" if swap else "even") if masked else None
        yield from _coupling(config, partition, (channels, channels), scale.features, mask)


def _channel_couplings(config: RealNVPConfig, scale: Scale) -> Iterator[Bijector]:
    """Squeeze, couplings between the channels' halves, and the order of channels to factor out."""
    yield Squeeze(config.squeeze)
    channels = 4 * scale.shape[0]
    for index in range(config.channel_couplings):
        partition = ChannelHalves(swap=_swap(config, index))
        half = channels // 2
        yield from _coupling(config, partition, (half, channels), scale.channel_features, None)
    if config.factor_squeeze != config.squeeze:
        yield Inverse(Squeeze(config.squeeze))
        yield Squeeze(config.factor_squeeze)


def _swap(config: RealNVPConfig, index: int) -> bool:
    """Whether the second half conditions the coupling of this index; they take turns."""
    return (index % 2 == 1) != (config.first_conditioner == "second")


def _coupling(
    config: RealNVPConfig,
    partition: Partition,
    channels: tuple[int, int],
    features: int,
    mask: Literal["even", "odd"] | None,
) -> Iterator[Bijector]:
    """One coupling and its normalization; ``channels`` are those of the half and of the whole."""
    half, whole = channels
    net = CouplingNetwork(
        config.network,
        half,
        2 * half,
        features,
        blocks=config.residual_blocks,
        bottleneck=config.bottleneck,
        batch_norm=config.network_batch_norm,
        mask=mask,
        scales=config.network_scales,
    )
    scale_map = ScaleMap(config.scale_map, half)
    yield AffineCoupling(partition, net, scale_map, order=config.affine_order)
    if config.normalization == "batch":
        yield FlowBatchNorm(half, partition)
    elif config.normalization == "actnorm":
        yield ActNorm((whole,))


def _dequantization(config: RealNVPConfig) -> Dequantization:
    """Uniform noise, or noise from a flow that knows the image (Ho et al. 2019, section 3.1).

    That flow couples the colours of the checkerboard as halves of the channels of 2x2 blocks, which costs a
    quarter of the pixels.
    """
    if config.dequantization == "uniform":
        return UniformDequantization()
    channels = config.image_shape[0]
    features = config.dequantization_features
    half = 2 * channels
    couplings = []
    for index in range(config.dequantization_couplings):
        net = CouplingNetwork("conv", half, 2 * half, features, context_channels=features)
        partition = ChannelHalves(swap=index % 2 == 1)
        couplings.append(AffineCoupling(partition, net, ScaleMap("soft-tanh", half), order="scale-shift"))
    context = ImageContext(channels, features)
    return squeezed_dequantization(couplings, context, config.n_bits, squeeze_order="checkerboard")
