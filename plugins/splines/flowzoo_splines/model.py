"""Builds a spline flow from its config."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import nn

from flowzoo.bijectors import (
    ActNorm,
    Bijector,
    Chain,
    ChannelHalves,
    Checkerboard,
    CountedHistogramCDF,
    FactorOut,
    FixedAffine,
    Flatten,
    Inverse,
    InvertibleConv1x1,
    Logit,
    Permutation,
    Squeeze,
    Standardize,
)
from flowzoo.densities import BaseDensity, StandardNormal, StandardUniform
from flowzoo.flow import Flow
from flowzoo.nets.mlp import MLP
from flowzoo_splines.bijectors import CubeSigmoid, SplineCoupling
from flowzoo_splines.config import SplinesConfig
from flowzoo_splines.functions import LinearSpline, QuadraticSpline, RationalQuadraticSpline, Spline
from flowzoo_splines.networks import ConvResidualNet, DenseUNet, OneBlob, conv_network

__all__ = ["build"]


def build(config: SplinesConfig) -> Flow:
    """Builds an untrained spline flow."""
    base: BaseDensity = StandardUniform() if config.space == "cube" else StandardNormal()
    if config.image_shape is None:
        return Flow(dims=config.dims, bijector=Chain(*_vector_stack(config, config.dims or 0)), base=base)
    stack = Chain(*_image_head(config), *_levels(config, config.image_shape))
    return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=stack, base=base)


def _spline(config: SplinesConfig) -> Spline:
    kinds: dict[str, type[LinearSpline] | type[QuadraticSpline] | type[RationalQuadraticSpline]] = {
        "linear": LinearSpline,
        "quadratic": QuadraticSpline,
        "rational-quadratic": RationalQuadraticSpline,
    }
    kind = kinds[config.spline]
    if config.space == "cube":
        return kind(bins=config.bins, minimum=config.minimum)
    bound = config.tail_bound
    return kind(bins=config.bins, minimum=config.minimum, low=-bound, high=bound, linear_tails=True)


def _vector_stack(config: SplinesConfig, dims: int) -> Iterator[Bijector]:
    yield Standardize(dims)
    if config.space == "cube":
        yield CubeSigmoid()
    spline = _spline(config)
    for index in range(config.steps):
        if index and index % 2 == 0 and dims > 2:
            yield _shuffle(dims)
        partition = ChannelHalves(swap=index % 2 == 1)
        sizes = ((dims + 1) // 2, dims // 2)
        seen, changed = sizes[::-1] if partition.swap else sizes
        yield SplineCoupling(partition, _vector_network(config, seen, changed * spline.parameters), spline)


def _vector_network(config: SplinesConfig, seen: int, outputs: int) -> nn.Module:
    inputs, features = seen * max(1, config.one_blob), config.features
    net: nn.Module
    if config.vector_network == "unet":
        net = DenseUNet(inputs, outputs, features, config.hidden_layers)
    else:
        net = MLP(inputs, (features,) * config.hidden_layers, outputs, init_range=0.0)
    return OneBlob(config.one_blob, net) if config.one_blob else net


def _image_head(config: SplinesConfig) -> Iterator[Bijector]:
    """The map of the pixels before the first level: images come in [0, 1]."""
    if config.space == "cube":
        if config.histogram:
            assert config.image_shape is not None
            flatten = Flatten(config.image_shape)
            # One more of each grey level, for those that the batch happens to lack.
            histogram = CountedHistogramCDF(
                math.prod(config.image_shape), 2**config.n_bits, shared=True, pseudocount=1.0
            )
            yield from (flatten, histogram, Inverse(flatten))
    elif config.logit_alpha:
        yield Logit(config.logit_alpha)
    else:
        yield FixedAffine(shift=-0.5)


def _levels(config: SplinesConfig, shape: tuple[int, int, int], level: int = 0) -> Iterator[Bijector]:
    """The levels from this one on: ``(B, C, H, W)`` to ``(B, C H W)``."""
    channels, height, width = shape
    if config.space == "cube":
        yield from _pixel_couplings(config, channels)
    yield Squeeze()
    shape = (4 * channels, height // 2, width // 2)
    yield from _alternating(config, shape[0]) if config.space == "cube" else _mixing(config, shape[0])
    if level == config.levels - 1:
        yield Flatten(shape)
    elif config.factor_out:
        yield FactorOut(Chain(*_levels(config, (shape[0] // 2, *shape[1:]), level + 1)))
    else:
        yield from _levels(config, shape, level + 1)


def _mixing(config: SplinesConfig, channels: int) -> Iterator[Bijector]:
    """Steps of ActNorm, 1x1 convolution and coupling, and a last 1x1 convolution (NSF's code)."""
    for _ in range(config.steps):
        yield ActNorm((channels,))
        yield InvertibleConv1x1(channels)
        yield _coupling(config, ChannelHalves(), channels // 2)
    yield InvertibleConv1x1(channels)


def _pixel_couplings(config: SplinesConfig, channels: int) -> Iterator[Bijector]:
    for index in range(config.pixel_couplings):
        yield _coupling(config, Checkerboard(swap=index % 2 == 1), channels)


def _alternating(config: SplinesConfig, channels: int) -> Iterator[Bijector]:
    """Couplings whose halves change roles, and after every two the members of the halves: nothing leaves the cube."""
    for index in range(config.steps):
        if index and index % 2 == 0:
            yield _shuffle(channels)
        yield _coupling(config, ChannelHalves(swap=index % 2 == 1), channels // 2)


def _shuffle(size: int) -> Permutation:
    """Puts the first half at the even places, the second at the odd ones."""
    half = (size + 1) // 2
    pairs = itertools.zip_longest(range(half), range(half, size))
    return Permutation(torch.tensor([i for pair in pairs for i in pair if i is not None]))


def _coupling(
    config: SplinesConfig, partition: ChannelHalves | Checkerboard, channels: int
) -> SplineCoupling:
    spline = _spline(config)
    outputs = channels * spline.parameters
    net: nn.Module
    if config.network == "resnet":
        net = ConvResidualNet(channels, outputs, config.features, config.residual_blocks, config.dropout)
    else:
        net = conv_network(channels, outputs, config.features)
    return SplineCoupling(partition, net, spline)
