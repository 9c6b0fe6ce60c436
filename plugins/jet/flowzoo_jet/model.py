"""Jet's stack: couplings in turn, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from flowzoo.bijectors import Bijector, Chain, FixedAffine, Flatten, Patches, logistic_marginals
from flowzoo.densities import StandardLogistic, StandardNormal
from flowzoo.flow import Flow
from flowzoo_jet.bijectors import SpatialKind, ViTCoupling, spatial_order
from flowzoo_jet.config import JetConfig
from flowzoo_jet.vit import Conditioner

SPATIAL: tuple[tuple[SpatialKind, bool], ...] = (
    ("checkerboard", False),
    ("checkerboard", True),
    ("columns", False),
    ("columns", True),
    ("rows", False),
    ("rows", True),
)
"""The ways to part tokens, in turn."""


def build(config: JetConfig) -> Flow:
    """Builds an untrained Jet."""
    stack: list[Bijector] = [*_head(config), Patches(config.image_shape, config.patch)]
    for order, spatial in _orders(config):
        stack.append(
            ViTCoupling(_conditioner(config), order, spatial=spatial, scale_bound=config.scale_bound)
        )
    stack.append(Flatten((config.tokens, config.token_size)))
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        bijector=Chain(*stack),
        base=StandardNormal() if config.marginals == "none" else StandardLogistic(),
        classes=config.classes or None,
    )


def _head(config: JetConfig) -> tuple[Bijector, ...]:
    """The map of the pixels, which come in [0, 1]."""
    if config.marginals == "histogram":
        return logistic_marginals(config.image_shape, 2**config.n_bits)
    return (FixedAffine(scale=2.0, shift=-1.0),)


def _orders(config: JetConfig) -> Iterator[tuple[Tensor, bool]]:
    """The permutation of each coupling, and whether it is of the tokens."""
    generator = torch.Generator().manual_seed(config.permutation_seed)
    spatial = itertools.cycle(SPATIAL)
    for kind in itertools.islice(itertools.cycle(config.kinds), config.couplings):
        if kind == "spatial":
            name, swap = next(spatial)
            order = spatial_order(name, config.grid, swap=swap)
        else:
            order = torch.randperm(config.token_size, generator=generator, device="cpu").tolist()
        # Made of numbers, so that it lies where the model is built, the meta device included.
        yield torch.tensor(order), kind == "spatial"


def _conditioner(config: JetConfig) -> Conditioner:
    return Conditioner(
        config.tokens,
        config.token_size // 2,
        channels=config.channels,
        heads=config.heads,
        layers=config.layers,
        classes=config.classes,
    )
