"""Invertible maps, one family per file; each with forward, inverse and log-determinant of shape (B,)."""

from flowzoo.bijectors import reversals as reversals
from flowzoo.bijectors.autoregressive import Autoregressive, Sampler
from flowzoo.bijectors.base import Bijector, Inverse, sum_per_item
from flowzoo.bijectors.cdfs import ComponentKind, MixtureMap, OutputKind, normal_quantile
from flowzoo.bijectors.chain import Chain, MemoryMode
from flowzoo.bijectors.constant import ConstantConv1x1, with_constant_matrices
from flowzoo.bijectors.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    Coupling,
)
from flowzoo.bijectors.elementwise import FixedAffine, Logit, Sigmoid
from flowzoo.bijectors.histogram import CountedHistogramCDF, HistogramCDF, logistic_marginals
from flowzoo.bijectors.kinds import DirectionKind, LogDetKind, MapKind
from flowzoo.bijectors.linear import InvertibleConv1x1, InvertibleConv1x1LU, Permutation, Whitening
from flowzoo.bijectors.mixture import LogisticMixture, MixtureLogisticCoupling
from flowzoo.bijectors.multiscale import ClassTop, ConditionalPrior, FactorOut, LearnedTop
from flowzoo.bijectors.normalization import ActNorm, DiagonalScaling, FlowBatchNorm
from flowzoo.bijectors.numeric import (
    polished,
    require_converged,
    residuals,
    solve_by_newton,
    solve_increasing,
)
from flowzoo.bijectors.partitions import (
    AlternateColumns,
    ChannelHalves,
    Checkerboard,
    InterleavedFeatures,
    MaskedCheckerboard,
    Partition,
    checkerboard_mask,
)
from flowzoo.bijectors.reshape import Flatten, Patches, Squeeze, SqueezeOrder
from flowzoo.bijectors.scale_maps import ScaleMap, ScaleMapName
from flowzoo.bijectors.standardize import Standardize
from flowzoo.bijectors.wanted import log_det_wanted, round_trip_wanted, unknown_log_det, values_alone
from flowzoo.ops.affine import AffineOrder, ParameterLayout

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AffineOrder",
    "AlternateColumns",
    "Autoregressive",
    "Bijector",
    "Chain",
    "ChannelHalves",
    "Checkerboard",
    "ClassTop",
    "ComponentKind",
    "ConditionalPrior",
    "ConstantConv1x1",
    "CountedHistogramCDF",
    "Coupling",
    "DiagonalScaling",
    "DirectionKind",
    "FactorOut",
    "FixedAffine",
    "Flatten",
    "FlowBatchNorm",
    "HistogramCDF",
    "InterleavedFeatures",
    "Inverse",
    "InvertibleConv1x1",
    "InvertibleConv1x1LU",
    "LearnedTop",
    "LogDetKind",
    "LogisticMixture",
    "Logit",
    "MapKind",
    "MaskedCheckerboard",
    "MemoryMode",
    "MixtureLogisticCoupling",
    "MixtureMap",
    "OutputKind",
    "ParameterLayout",
    "Partition",
    "Patches",
    "Permutation",
    "Sampler",
    "ScaleMap",
    "ScaleMapName",
    "Sigmoid",
    "Squeeze",
    "SqueezeOrder",
    "Standardize",
    "Whitening",
    "checkerboard_mask",
    "log_det_wanted",
    "logistic_marginals",
    "normal_quantile",
    "polished",
    "require_converged",
    "residuals",
    "round_trip_wanted",
    "solve_by_newton",
    "solve_increasing",
    "sum_per_item",
    "unknown_log_det",
    "values_alone",
    "with_constant_matrices",
]
