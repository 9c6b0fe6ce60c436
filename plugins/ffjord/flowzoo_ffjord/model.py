"""Continuous flows (FFJORD: Grathwohl et al., 2019), of vectors and multi-scale of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from flowzoo.bijectors import (
    Bijector,
    Chain,
    FactorOut,
    Flatten,
    Logit,
    Squeeze,
    Standardize,
    logistic_marginals,
)
from flowzoo.densities import BaseDensity, StandardLogistic, StandardNormal
from flowzoo.flow import Flow
from flowzoo.nets.keyed import Keys
from flowzoo_ffjord.bijectors import ContinuousFlow, adaptive
from flowzoo_ffjord.config import FFJORDConfig
from flowzoo_ffjord.networks import Velocity

Shape = tuple[int, int, int]


def build(config: FFJORDConfig) -> Flow:
    """Builds an untrained flow."""
    if config.image_shape is None:
        dims = config.dims or 0
        stack: list[Bijector] = [Standardize(dims), *_flows(config, dims)]
        return Flow(dims=config.dims, bijector=Chain(*stack))
    shape = config.image_shape
    base: BaseDensity = StandardNormal()
    stack = [Logit(config.alpha)]
    if config.marginals == "histogram":
        base, stack = StandardLogistic(), [*logistic_marginals(shape, 2**config.n_bits)]
    if config.squeeze_first:
        stack.append(Squeeze())
        shape = _squeezed(shape)
    stack += _scale(config, 0, shape)
    return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=Chain(*stack), base=base)


def _scale(config: FFJORDConfig, index: int, shape: Shape) -> Iterator[Bijector]:
    """One scale and all that follow it: ``(B, C, H, W)`` to ``(B, D)``."""
    yield from _flows(config, shape[0])
    if index + 1 == config.scales:
        yield Flatten(shape)
        return
    yield Squeeze()
    shape = _squeezed(shape)
    yield from _flows(config, shape[0])
    half = (shape[0] // 2, *shape[1:])
    yield FactorOut(Chain(*_scale(config, index + 1, (half[0], half[1], half[2]))))


def _flows(config: FFJORDConfig, channels: int) -> Iterator[Bijector]:
    image = config.image_shape is not None
    for _ in range(config.blocks):
        velocity = Velocity(channels, config.hidden, config.activation, image=image)
        yield ContinuousFlow(
            velocity,
            config.steps,
            config.trace,
            eval_steps=config.eval_steps,
            probe=config.probe,
            learn_time=config.learn_time,
        )


def _squeezed(shape: Shape) -> Shape:
    return 4 * shape[0], shape[1] // 2, shape[2] // 2


class SolverAudit(NamedTuple):
    """A flow's log-probabilities by its own grid and by the adaptive method.

    Attributes:
        grid: By the grid, ``(B,)`` nats.
        adaptive: By the adaptive method, with the same probes.
        evaluations: Evaluations of all networks that the adaptive method took, ``(B,)``.
    """

    grid: Tensor
    adaptive: Tensor
    evaluations: Tensor


@torch.no_grad()
def audit_solver(flow: Flow, x: Tensor, *, seed: int = 0, tolerance: float = 1e-6) -> SolverAudit:
    """Compares a flow's grid with an adaptive solution of every item's own steps.

    Args:
        flow: A flow of continuous flows.
        x: Images ``uint8 (B, C, H, W)``, or vectors ``(B, D)``.
        seed: Of noise and probes, the same for both.
        tolerance: Relative and absolute, of a step.
    """
    keys = Keys(seed=seed, items=range(len(x)))
    noise = flow.draw_noise(len(x), generator=torch.Generator().manual_seed(seed))
    grid = flow.log_prob(x, noise=noise, keys=keys)
    with adaptive(flow, tolerance, tolerance) as found:
        solved = flow.log_prob(x, noise=noise, keys=keys)
    return SolverAudit(grid, solved, torch.stack(found.evaluations).sum(0))
