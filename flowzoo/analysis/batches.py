"""Work on many items, a batch at a time, with a report after each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["Advance", "decode", "draw", "encode", "log_probs", "require_images", "silent"]

Advance = Callable[[int], None]
"""Called with the number of items that a batch has just finished."""

SAMPLES_AT_ONCE = 64
"""Latents drawn at a time; a constant, since it decides which numbers each latent gets."""


def silent(_: int) -> None:
    """Reports nothing."""


def require_images(flow: Flow, what: str) -> None:
    """Checks that a flow models images.

    Raises:
        InputError: It models vectors; the message says that ``what`` needs images.
    """
    if flow.data_kind != "images":
        raise InputError(
            f"{what} needs a model of images; this one is a density of {flow.dims}-d vectors, for which there are "
            "`flowzoo eval`, `flowzoo sample` and, of one or two numbers, `flowzoo picture`."
        )


def encode(
    flow: Flow, x: Tensor, y: Tensor | int | None = None, *, batch_size: int = 64, advance: Advance = silent
) -> Tensor:
    """Latents ``(B, D)`` of images ``uint8 (B, C, H, W)``; see :meth:`flowzoo.Flow.encode`."""
    return _in_batches(flow, flow.encode, x, y, batch_size, advance)


def decode(
    flow: Flow, z: Tensor, y: Tensor | int | None = None, *, batch_size: int = 64, advance: Advance = silent
) -> Tensor:
    """Images ``uint8 (B, C, H, W)`` of latents ``(B, D)``; see :meth:`flowzoo.Flow.decode`."""
    return _in_batches(flow, flow.decode, z, y, batch_size, advance)


def _in_batches(
    flow: Flow,
    function: Callable[..., Tensor],
    items: Tensor,
    y: Tensor | int | None,
    batch_size: int,
    advance: Advance,
) -> Tensor:
    found = []
    with flow._kept(len(items), batch_size):
        for first in range(0, len(items), batch_size):
            rows = slice(first, first + batch_size)
            labels = y[rows] if isinstance(y, torch.Tensor) else y
            found.append(function(items[rows], labels, batch_size=batch_size))
            advance(len(found[-1]))
    return torch.cat(found) if found else function(items, y)


def draw(
    flow: Flow,
    n: int,
    y: Tensor | int | None = None,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    advance: Advance = silent,
) -> Tensor:
    """Samples ``(n, ...)``; their latents are drawn on the CPU, the same ones for any batch size and device.

    Args:
        flow: The flow.
        n: How many.
        y: Labels ``(n,)``, or one for all, of a conditional flow.
        temperature: Factor on the latents.
        seed: The same seed, the same latents, whatever the temperature.
        batch_size: How many are decoded at a time.
        advance: Called after each batch.

    Returns:
        ``uint8 (n, C, H, W)``, or floats ``(n, D)`` of a flow over vectors.

    Raises:
        InputError: Wrong arguments, or latents that cannot be inverted.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    with flow._kept(n, min(batch_size, SAMPLES_AT_ONCE)):
        for first in range(0, n, SAMPLES_AT_ONCE):
            count = min(SAMPLES_AT_ONCE, n - first)
            labels = y[first : first + count] if isinstance(y, torch.Tensor) else y
            found.append(
                flow.sample(
                    count, labels, temperature=temperature, generator=generator, batch_size=batch_size
                )
            )
            advance(count)
    return torch.cat(found) if found else flow.sample(0)


def log_probs(
    flow: Flow,
    x: Tensor,
    y: Tensor | int | None = None,
    *,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    advance: Advance = silent,
) -> Tensor:
    """Log-probability of images, or log-density of vectors, in nats: float64 ``(B,)`` on the CPU.

    Args:
        flow: The flow.
        x: Images ``uint8 (B, C, H, W)``, or vectors ``(B, D)``.
        y: Labels ``(B,)``, or one for all, of a conditional flow.
        samples: Draws of noise an image, importance-weighted.
        seed: Key of the noise: the item at one position has the same figure whatever else is in the batch.
        batch_size: Items computed at a time.
        advance: Called after each batch.
    """
    from flowzoo.data.images import ImageSet
    from flowzoo.distributed import World
    from flowzoo.evaluation.likelihood import likelihoods

    place = next(flow.parameters(), torch.empty(0)).device
    flow.space.require(x)
    if flow.data_kind == "images":
        found = likelihoods(
            flow,
            ImageSet(x.cpu()),
            World(0, 1, place),
            labels=y,
            samples=samples,
            seed=seed,
            batch_size=batch_size,
            on_batch=lambda indices, *_: advance(len(indices)),
        )
        return found.log_prob
    generator = torch.Generator().manual_seed(seed)

    def one_batch(x: Tensor, y: Tensor | int | None, *, batch_size: int) -> Tensor:
        return flow.log_prob(x, y, samples=samples, generator=generator).double().cpu()

    with torch.no_grad():
        return _in_batches(flow, one_batch, x.to(place), y, batch_size, advance)
