"""Base densities, and dequantization from integers to reals: the parts around a bijector."""

from flowzoo.densities.base import BaseDensity, StandardLogistic, StandardNormal
from flowzoo.densities.dequantization import (
    Dequantization,
    NoiseKind,
    UniformDequantization,
    VariationalDequantization,
    convolutional_dequantization,
    squeezed_dequantization,
)

__all__ = [
    "BaseDensity",
    "Dequantization",
    "NoiseKind",
    "StandardLogistic",
    "StandardNormal",
    "UniformDequantization",
    "VariationalDequantization",
    "convolutional_dequantization",
    "squeezed_dequantization",
]
