"""NICE's stack of bijectors (Dinh, Krueger and Bengio, 2015, section 5.1)."""

from __future__ import annotations

import math

from flowzoo.bijectors import (
    AdditiveCoupling,
    Bijector,
    Chain,
    DiagonalScaling,
    FixedAffine,
    Flatten,
    InterleavedFeatures,
    Whitening,
    logistic_marginals,
)
from flowzoo.densities import StandardLogistic, StandardNormal
from flowzoo.flow import Flow
from flowzoo.nets.mlp import MLP
from flowzoo_nice.config import NICEConfig


def build(config: NICEConfig) -> Flow:
    """Builds an untrained NICE."""
    dims = math.prod(config.image_shape)
    stack: list[Bijector] = [Flatten(config.image_shape)]
    if config.input_range == "symmetric":
        stack.append(FixedAffine(scale=2.0, shift=-1.0))
    if config.whitening == "zca":
        stack.append(Whitening(dims, config.whitening_eps))
    if config.marginals == "histogram":
        stack += logistic_marginals((dims,), 2**config.n_bits)
    even, odd = (dims + 1) // 2, dims // 2
    for index, layers in enumerate(config.layers_per_coupling()):
        swap = index % 2 == 1
        sizes = (odd, even) if swap else (even, odd)
        net = MLP(sizes[0], (config.hidden_units,) * layers, sizes[1], config.init_range)
        stack.append(AdditiveCoupling(InterleavedFeatures(swap), net))
    scaling = DiagonalScaling((dims,))
    if config.marginals == "histogram":
        scaling.mark_initialized()  # what the couplings begin with has the base's own distribution
    stack.append(scaling)
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        bijector=Chain(*stack),
        base=StandardLogistic() if config.base == "logistic" else StandardNormal(),
    )
