"""Base densities, dequantization and augmentation: the parts around a bijector."""

from flowzoo.densities.augmentation import Augmentation, GaussianAugmentation, StandardAugmentation
from flowzoo.densities.base import BaseDensity, StandardLogistic, StandardNormal
from flowzoo.densities.bounded import StandardBeta, StandardUniform
from flowzoo.densities.dequantization import (
    Dequantization,
    GaussianNoise,
    NoDequantization,
    NoiseKind,
    Run,
    UniformDequantization,
    VariationalDequantization,
    convolutional_dequantization,
    squeezed_dequantization,
)
from flowzoo.densities.mixtures import LogisticMixture, NormalMixture

__all__ = [
    "Augmentation",
    "BaseDensity",
    "Dequantization",
    "GaussianAugmentation",
    "GaussianNoise",
    "LogisticMixture",
    "NoDequantization",
    "NoiseKind",
    "NormalMixture",
    "Run",
    "StandardAugmentation",
    "StandardBeta",
    "StandardLogistic",
    "StandardNormal",
    "StandardUniform",
    "UniformDequantization",
    "VariationalDequantization",
    "convolutional_dequantization",
    "squeezed_dequantization",
]
