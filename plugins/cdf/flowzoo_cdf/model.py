"""Elementwise flows: each value by its own distribution function."""

from __future__ import annotations

from flowzoo.bijectors import (
    Bijector,
    Chain,
    FixedAffine,
    Flatten,
    HistogramCDF,
    Logit,
    OutputKind,
    Standardize,
)
from flowzoo.densities import BaseDensity, StandardBeta, StandardLogistic, StandardNormal, StandardUniform
from flowzoo.flow import Flow
from flowzoo_cdf.bijectors import (
    ElementwiseAffine,
    FullAffine,
    MixtureCDF,
    UniformToBeta,
)
from flowzoo_cdf.config import CDFConfig


def build(config: CDFConfig) -> Flow:
    """Builds an untrained elementwise flow."""
    stack = [*_head(config), *_elementwise(config)]
    base = _base(config)
    if config.image_shape is None:
        return Flow(dims=config.dims, bijector=Chain(*stack), base=base)
    return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=Chain(*stack), base=base)


def _head(config: CDFConfig) -> list[Bijector]:
    """The fixed maps before everything that is learned."""
    stack: list[Bijector] = []
    if config.image_shape is None:
        stack.append(Standardize(config.size))
    else:
        if config.alpha:
            stack.append(Logit(config.alpha))
        elif config.elementwise != "histogram":
            stack.append(FixedAffine(scale=4.0, shift=-2.0))
        stack.append(Flatten(config.image_shape))
    if config.full_affine:
        stack.append(FullAffine(config.size))
    return stack


def _elementwise(config: CDFConfig) -> list[Bijector]:
    size, shared = config.size, config.shared
    if config.elementwise == "affine":
        return [ElementwiseAffine(size, shared=shared)]
    if config.elementwise == "histogram":
        stack: list[Bijector] = [HistogramCDF(size, config.bins, shared=shared)]
    else:
        output: OutputKind = "uniform" if config.base == "beta" else config.base
        stack = [MixtureCDF(size, config.components, config.elementwise, output, shared=shared)]
    if config.base == "beta":
        stack.append(UniformToBeta(*config.beta))
    return stack


def _base(config: CDFConfig) -> BaseDensity:
    if config.base == "beta":
        return StandardBeta(*config.beta)
    return {"uniform": StandardUniform, "normal": StandardNormal, "logistic": StandardLogistic}[config.base]()
