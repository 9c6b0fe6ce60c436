"""Masked autoregressive flows (Papamakarios et al., 2017), and inverse ones (Kingma et al., 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.bijectors import (
    ActNorm,
    Autoregressive,
    Bijector,
    Chain,
    Flatten,
    FlowBatchNorm,
    Inverse,
    Logit,
    OutputKind,
    Standardize,
    logistic_marginals,
)
from flowzoo.densities import StandardLogistic, StandardNormal, StandardUniform
from flowzoo.flow import Flow
from flowzoo.nets.made import MADE
from flowzoo_maf.bijectors import AffineAutoregressive, MixtureAutoregressive, ScaleAndShift
from flowzoo_maf.config import MAFConfig

BATCH_NORM_EPS = 1e-5
"""Of the paper's code."""

MOMENTUM = 0.01
"""Share of a batch in the running statistics, which stand for those of the whole training set in the paper's code."""


BASES = {"normal": StandardNormal, "uniform": StandardUniform, "logistic": StandardLogistic}


def build(config: MAFConfig) -> Flow:
    """Builds an untrained flow."""
    stack: list[Bijector] = []
    if config.image_shape is not None:
        stack += _head(config, config.image_shape)
    else:
        stack.append(Standardize(config.size))
    degrees = _first_degrees(config)
    for index in range(config.layers):
        layer = _layer(config, index, degrees)
        stack.append(Inverse(layer) if config.inverse else layer)
        stack += _normalization(config, index)
        degrees = config.size + 1 - degrees
    base = BASES[config.base]()
    if config.image_shape is not None:
        return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=Chain(*stack), base=base)
    return Flow(dims=config.dims, bijector=Chain(*stack), base=base)


def _head(config: MAFConfig, shape: tuple[int, int, int]) -> tuple[Bijector, ...]:
    """From pixels in [0, 1] to vectors."""
    if config.marginals == "histogram":
        return (Flatten(shape), *logistic_marginals((config.size,), 2**config.n_bits))
    return (Logit(config.alpha), Flatten(shape))


def _first_degrees(config: MAFConfig) -> Tensor:
    """The order of the first layer, ``(D,)`` from 1."""
    if config.order == "sequential":
        return torch.arange(1, config.size + 1)
    generator = torch.Generator().manual_seed(config.order_seed)
    drawn = torch.randperm(config.size, generator=generator, device="cpu")
    # Made again, so that it lies where the model is built, the meta device included.
    return torch.tensor(drawn.tolist()) + 1


def _layer(config: MAFConfig, index: int, degrees: Tensor) -> Autoregressive:
    mixture = config.is_mixture(index)
    parameters = 3 * config.mixture if mixture else 2
    made = MADE(
        degrees,
        config.hidden,
        parameters,
        config.activation,
        direct=config.direct,
        input_bound=config.input_bound or None,
    )
    if not mixture:
        return AffineAutoregressive(made, config.sampler, config.log_scale_clip)
    last = index == config.layers - 1
    output: OutputKind = "uniform" if last and config.base == "uniform" else "normal"
    return MixtureAutoregressive(made, config.sampler, output)


def _normalization(config: MAFConfig, index: int) -> list[Bijector]:
    """The layers between two autoregressive ones, and after the last."""
    if config.normalization == "none" or config.is_mixture(index):
        # A mixture's output has its distribution already.
        return []
    if config.normalization == "actnorm":
        return [ActNorm((config.size,))]
    return [FlowBatchNorm(config.size, momentum=MOMENTUM, eps=BATCH_NORM_EPS), ScaleAndShift(config.size)]
