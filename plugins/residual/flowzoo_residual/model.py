"""Invertible residual networks (Behrmann et al., 2019) and Residual Flows (Chen et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from flowzoo.bijectors import (
    ActNorm,
    Bijector,
    Chain,
    FactorOut,
    FixedAffine,
    Flatten,
    LearnedTop,
    Logit,
    Squeeze,
    Standardize,
    logistic_marginals,
)
from flowzoo.flow import Flow
from flowzoo_residual.bijectors import ResidualBlock
from flowzoo_residual.branch import Branch, convolutional, fully_connected
from flowzoo_residual.config import ResidualConfig

Shape = tuple[int, int, int]


def build(config: ResidualConfig) -> Flow:
    """Builds an untrained flow."""
    if config.image_shape is None:
        return _vectors(config)
    shape, stack = config.image_shape, [*_head(config, config.image_shape)]
    if config.initial_squeeze:
        stack.append(Squeeze())
        shape = _squeezed(shape)
    stack += _scale(config, 0, shape)
    if config.learned_base:
        stack.append(LearnedTop((math.prod(config.image_shape),)))
    return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=Chain(*stack))


def _head(config: ResidualConfig, shape: Shape) -> tuple[Bijector, ...]:
    """The map of the pixels, which come in [0, 1]."""
    if config.marginals == "histogram":
        return logistic_marginals(shape, 2**config.n_bits)
    return (Logit(config.alpha) if config.preprocessing == "logit" else FixedAffine(1.0, -0.5),)


def _vectors(config: ResidualConfig) -> Flow:
    dims = config.dims or 0
    stack: list[Bijector] = [Standardize(dims)]
    for index in range(config.blocks[0]):
        branch = fully_connected(
            dims,
            config.channels,
            config.fc_layers,
            config.activation,
            config.coefficient,
            activated_input=index > 0,
        )
        stack += _normalised(config, branch, (dims,))
    if config.learned_base:
        stack.append(LearnedTop((dims,)))
    return Flow(dims=config.dims, bijector=Chain(*stack))


def _scale(config: ResidualConfig, index: int, shape: Shape) -> Iterator[Bijector]:
    """One scale and all that follow it: ``(B, C, H, W)`` to ``(B, D)``."""
    if index == 0 and config.normalization == "after":
        # The very first block has no activation at its input; this stands in its place.
        yield ActNorm(shape[:1])
    for block in range(config.blocks[index]):
        branch = convolutional(
            shape,
            config.channels,
            config.kernels,
            config.activation,
            config.coefficient,
            activated_input=index > 0 or block > 0,
        )
        yield from _normalised(config, branch, shape[:1])
    if index + 1 == len(config.blocks):
        yield Flatten(shape)
        yield from _fully_connected(config, math.prod(shape))
        return
    if config.factor_out:
        half = (shape[0] // 2, *shape[1:])
        yield FactorOut(Chain(Squeeze(), *_scale(config, index + 1, _squeezed(half))))
    else:
        yield Squeeze()
        yield from _scale(config, index + 1, _squeezed(shape))


def _squeezed(shape: tuple[int, ...]) -> Shape:
    return 4 * shape[0], shape[1] // 2, shape[2] // 2


def _fully_connected(config: ResidualConfig, dims: int) -> Iterator[Bijector]:
    for _ in range(config.fc_blocks):
        branch = fully_connected(
            dims, config.fc_hidden, config.fc_layers, config.activation, config.coefficient
        )
        yield from _normalised(config, branch, (dims,))


def _normalised(config: ResidualConfig, branch: Branch, shape: tuple[int, ...]) -> list[Bijector]:
    """A block and its ActNorm: outside the branch, where its scale is no part of the contraction."""
    block = ResidualBlock(
        branch,
        config.estimator,
        exact_terms=config.exact_terms,
        eval_terms=config.eval_terms,
        distribution=config.roulette,
        rate=config.rate,
        probe=config.probe,
        gradient=config.gradient,
    )
    if config.normalization == "none":
        return [block]
    return [ActNorm(shape), block] if config.normalization == "before" else [block, ActNorm(shape)]


@dataclass(frozen=True)
class Certificate:
    """Why a flow of residual blocks is invertible.

    Attributes:
        lipschitz: A Lipschitz constant of each block's branch, by the block's name.
    """

    lipschitz: Mapping[str, float]

    @property
    def largest(self) -> float:
        """The largest of them; every block is invertible if it is below 1."""
        return max(self.lipschitz.values(), default=0.0)


def certify(module: nn.Module) -> Certificate:
    """Computes Lipschitz constants of all residual blocks inside anew, in float64, from new starts as well.

    Args:
        module: A flow, or any part of one.

    Returns:
        The constants; a residual r of an inverse then means an error of at most r / (1 - constant).
    """
    return Certificate(
        {
            name: block.branch.certified_lipschitz()
            for name, block in module.named_modules()
            if isinstance(block, ResidualBlock)
        }
    )
