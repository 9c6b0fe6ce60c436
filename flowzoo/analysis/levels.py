"""The levels of a multi-scale latent, and what of an image each of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from flowzoo.analysis.batches import Advance, decode, encode, require_images, silent
from flowzoo.bijectors.chain import Chain
from flowzoo.bijectors.multiscale import FactorOut
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["Levels", "latent_levels", "reconstruct_levels"]


@dataclass(frozen=True, slots=True)
class Levels:
    """Images rebuilt from parts of their latents; L levels, the coarsest first.

    Attributes:
        sizes: Dimensions of each level; they add up to D.
        upto: ``uint8 (B, L, C, H, W)``: in column k levels 0 to k are the image's, the finer ones drawn anew. The
            last column is the whole reconstruction.
        without: ``uint8 (B, L, C, H, W)``: in column k only level k is drawn anew.
        error: float64 ``(L,)``: mean absolute difference, in grey levels, between the images and ``without``.
    """

    sizes: tuple[int, ...]
    upto: Tensor
    without: Tensor
    error: Tensor


def latent_levels(flow: Flow) -> list[slice]:
    """Where in the latent ``(D,)`` each level lies, the coarsest first; a single one of a flow that factors none out.

    Each :class:`flowzoo.bijectors.FactorOut` at the end of a chain halves what goes on: its latent is the rest's,
    then the half that has left.
    """
    bounds = [flow.latent_dims]
    part: object = flow.bijector
    while isinstance(part, Chain | FactorOut):
        if isinstance(part, FactorOut):
            bounds.append(bounds[-1] // 2)
            part = part.rest
        else:
            part = [None, *part][-1]
    bounds = [*bounds, 0][::-1]
    return [slice(first, last) for first, last in pairwise(bounds)]


def reconstruct_levels(
    flow: Flow,
    x: Tensor,
    y: int | None = None,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
    advance: Advance = silent,
) -> Levels:
    """Rebuilds images level by level.

    Args:
        flow: A flow over images with more than one level.
        x: Images ``uint8 (B, C, H, W)``.
        y: One label for all, of a conditional flow.
        temperature: Of the levels that are not the image's; at 0 they are the centre of their density, which gives
            the most typical rest.
        seed: Of the levels that are drawn anew; the same draw in every column.
        batch_size: Images computed at a time.
        advance: Called after each batch.

    Raises:
        InputError: The images do not fit, or the flow has a single level.
    """
    require_images(flow, "a reconstruction by levels")
    levels = latent_levels(flow)
    if len(levels) == 1:
        raise InputError(
            "this model's latent has a single level: it factors nothing out, so there is nothing to show level by "
            "level. Choose a model of several scales, such as glow-mnist or realnvp-mnist."
        )
    z = encode(flow, x, y, batch_size=batch_size, advance=advance)
    generator = torch.Generator().manual_seed(seed)
    drawn = flow.base.sample(len(z), z.shape[1], generator=generator, device=z.device, dtype=z.dtype)
    drawn = flow.base.at_temperature(drawn, temperature)
    upto = [torch.cat((z[:, : level.stop], drawn[:, level.stop :]), dim=1) for level in levels]
    without = [
        torch.cat((z[:, : level.start], drawn[:, level], z[:, level.stop :]), dim=1) for level in levels
    ]
    latents = torch.stack([*upto, *without], dim=1)
    images = decode(flow, latents.flatten(0, 1), y, batch_size=batch_size, advance=advance)
    images = images.reshape(len(x), 2, len(levels), *x.shape[1:])
    error = (images[:, 1].double() - x[:, None].double()).abs().flatten(2).mean(dim=(0, 2)).cpu()
    sizes = tuple(level.stop - level.start for level in levels)
    return Levels(sizes, images[:, 0], images[:, 1], error)
