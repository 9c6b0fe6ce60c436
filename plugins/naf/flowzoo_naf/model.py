"""Builds a neural autoregressive flow from its config."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from flowzoo.bijectors import (
    ActNorm,
    Bijector,
    Chain,
    ChannelHalves,
    FactorOut,
    Flatten,
    InvertibleConv1x1,
    Logit,
    Permutation,
    Squeeze,
    Standardize,
    logistic_marginals,
)
from flowzoo.flow import Flow
from flowzoo.nets.conv import ConvStack
from flowzoo.nets.made import MADE
from flowzoo.nets.mlp import MLP
from flowzoo_naf.bijectors import SigmoidalAutoregressive, SigmoidalCoupling
from flowzoo_naf.config import NAFConfig
from flowzoo_naf.sigmoidal import SigmoidalFlow

__all__ = ["build"]


def build(config: NAFConfig) -> Flow:
    """Builds an untrained flow with a standard normal base."""
    if config.image_shape is None:
        return Flow(dims=config.dims, bijector=Chain(*_vector_stack(config, config.dims or 0)))
    stack = Chain(*_head(config, config.image_shape), *_levels(config, config.image_shape))
    return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=stack)


def _head(config: NAFConfig, shape: tuple[int, int, int]) -> tuple[Bijector, ...]:
    """The map of the pixels, which come in [0, 1]."""
    if config.marginals == "histogram":
        return logistic_marginals(shape, 2**config.n_bits)
    return (Logit(config.logit_alpha),)


def _flow(config: NAFConfig) -> SigmoidalFlow:
    return SigmoidalFlow(config.units, config.sigmoid_layers)


def _vector_stack(config: NAFConfig, dims: int) -> Iterator[Bijector]:
    flow, hidden = _flow(config), (config.features,) * config.hidden_layers
    yield Standardize(dims)
    for index in range(config.steps):
        if config.conditioner == "autoregressive":
            if index:
                yield Permutation.reversal(dims)
            made = MADE(torch.arange(1, dims + 1), hidden, flow.parameters, "elu")
            flow.begin(made.out, config.init_range, config.init_spread)
            yield SigmoidalAutoregressive(made, flow)
            continue
        if index and index % 2 == 0 and dims > 2:
            yield Permutation.random(dims, seed=index)
        partition = ChannelHalves(swap=index % 2 == 1)
        sizes = ((dims + 1) // 2, dims // 2)
        seen, changed = sizes[::-1] if partition.swap else sizes
        net = MLP(seen, hidden, changed * flow.parameters, init_range=0.0)
        last = net.layers[-1]
        assert isinstance(last, nn.Linear)
        flow.begin(last, config.init_range, config.init_spread)
        yield SigmoidalCoupling(partition, net, flow)


def _levels(config: NAFConfig, shape: tuple[int, int, int], level: int = 0) -> Iterator[Bijector]:
    """The levels from this one on: ``(B, C, H, W)`` to ``(B, C H W)``."""
    yield Squeeze()
    channels, height, width = 4 * shape[0], shape[1] // 2, shape[2] // 2
    for _ in range(config.steps):
        yield ActNorm((channels,))
        yield InvertibleConv1x1(channels)
        yield _coupling(config, channels // 2)
    if level == config.levels - 1:
        yield Flatten((channels, height, width))
    else:
        rest = Chain(*_levels(config, (channels // 2, height, width), level + 1))
        yield FactorOut(rest)


def _coupling(config: NAFConfig, channels: int) -> SigmoidalCoupling:
    flow, features = _flow(config), config.features
    last = nn.Conv2d(features, channels * flow.parameters, 3, padding=1)
    flow.begin(last, config.init_range, config.init_spread)
    net = ConvStack(
        {
            "first": nn.Conv2d(channels, features, 3, padding=1),
            "second": nn.Conv2d(features, features, 1),
            "last": last,
        }
    )
    return SigmoidalCoupling(ChannelHalves(), net, flow)
