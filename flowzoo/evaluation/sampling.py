"""The share of a flow's own samples that are finite: what a model has to show before it ships."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from flowzoo.bijectors.wanted import values_alone
from flowzoo.errors import IntegrityError, NotConverged
from flowzoo.evaluation.precision import full_precision
from flowzoo.manifest.schema import Sampling

if TYPE_CHECKING:
    from flowzoo.flow import Flow

__all__ = ["SHIPPING_COUNT", "check_shippable", "count_finite"]

SHIPPING_COUNT = 10_000
"""Latents that a model that ships has to map to finite data, all of them, at temperature 1."""

_BATCH = 50
"""Latents drawn at a time; a constant, since it decides which numbers each latent gets."""

_MANY_PASSES = 100
"""Passes of an inverse from which on ten batches are mapped at once: each is short and waits for the one before."""


@torch.no_grad()
def count_finite(
    flow: Flow, count: int = SHIPPING_COUNT, *, temperature: float = 1.0, seed: int = 0
) -> Sampling:
    """Draws latents from the base density and counts those that the inverse maps to finite numbers, in float32.

    Args:
        flow: The flow; its mode and its dtype are left as they are.
        count: Latents to draw, each of shape ``(D,)``.
        temperature: Factor on the latents.
        seed: Seed of the generator, which is on the CPU: every device is given the same latents.

    Returns:
        How many were drawn, and how many of them gave data whose every value is finite.
    """
    generator = torch.Generator().manual_seed(seed)
    place = next(flow.parameters(), torch.empty(0))
    training, finite = flow.training, 0
    flow.eval()
    try:
        with full_precision(flow, place.device), flow.frozen():
            step = _BATCH if flow.sampling_passes < _MANY_PASSES else 10 * _BATCH
            for start in range(0, count, step):
                end = min(start + step, count)
                sizes = [min(_BATCH, end - at) for at in range(start, end, _BATCH)]
                drawn = [
                    flow.base.sample(
                        size, flow.latent_dims, generator=generator, device=place.device, dtype=torch.float32
                    )
                    for size in sizes
                ]
                z = flow.base.at_temperature(torch.cat(drawn), temperature).to(place.dtype)
                finite += _finite(flow, z, flow.context_of(_labels(flow, sizes), len(z)))
    finally:
        flow.train(training)
    return Sampling(drawn=count, finite=finite, temperature=temperature, seed=seed)


def _finite(flow: Flow, z: torch.Tensor, context: torch.Tensor | None) -> int:
    """The number of latents whose inverse is finite, and of a numeric one converged."""
    try:
        with values_alone():
            v, _ = flow.engine.run(flow.bijector, z, context, inverse=True)
    except NotConverged as error:
        if not error.rows:
            raise
        kept = torch.ones(len(z), dtype=torch.bool, device=z.device)
        kept[torch.tensor(error.rows, device=z.device)] = False
        left = None if context is None else context[kept]
        return _finite(flow, z[kept], left) if bool(kept.any()) else 0
    return int(v.isfinite().flatten(1).all(dim=1).sum())


def _labels(flow: Flow, sizes: list[int]) -> torch.Tensor | None:
    """Labels by which each class of a conditional flow has its share of each batch."""
    if flow.labels is None:
        return None
    return torch.cat([torch.arange(size) for size in sizes]) % flow.labels.classes


def check_shippable(name: str, sampling: Sampling | None) -> None:
    """Checks that a model may ship: enough samples at temperature 1, all of them finite.

    Raises:
        IntegrityError: It may not; the message says how many samples were lost.
    """
    if sampling is None or sampling.drawn < SHIPPING_COUNT or sampling.temperature != 1.0:
        raise IntegrityError(
            f"{name}: nothing shows that its samples are finite; expected {SHIPPING_COUNT:,} drawn at temperature 1."
        )
    lost = sampling.drawn - sampling.finite
    if lost:
        raise IntegrityError(
            f"{name} cannot ship: {lost:,} of {sampling.drawn:,} samples at temperature 1 are NaN or infinite, "
            "expected none. Some coupling nearly loses a direction, which the inverse cannot give back: bound its "
            "scales, or train with a smaller learning rate."
        )
