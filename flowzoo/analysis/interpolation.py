"""Ways between images through the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from flowzoo.analysis.batches import Advance, decode, encode, require_images, silent
from flowzoo.arguments import require_count
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["Way", "between", "interpolate"]

Way = Literal["linear", "spherical"]


def between(a: Tensor, b: Tensor, steps: int, way: Way = "spherical", centre: float = 0.0) -> Tensor:
    """Points on the way from one latent to another, both ends included.

    Linear: (1 - t) a + t b. Spherical: sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, with w the angle between a
    and b as seen from the centre (Shoemake, 1985; for latents White, arXiv 1609.04468): the points keep the length
    that latents of a normal density have, where the middle of a straight line is too short.

    Args:
        a: ``(D,)``, or ``(B, D)`` for several ways at once.
        b: The same shape.
        steps: Points on each way, at least 2.
        way: ``"linear"`` or ``"spherical"``; where a and b lie on a line through the centre both are the same.
        centre: Of the base density.

    Returns:
        ``(steps, D)``, or ``(B, steps, D)``. The first point is a and the last is b, to the last bit.
    """
    require_count("steps", steps, least=2)
    if way not in ("linear", "spherical"):
        raise InputError(f"way is {way!r}; expected 'linear' or 'spherical'.")
    a, b = a.unsqueeze(-2), b.unsqueeze(-2)
    t = torch.linspace(0, 1, steps, dtype=torch.float64, device=a.device).unsqueeze(-1)
    first, second = 1 - t, t
    if way == "spherical":
        from_a, from_b = (a - centre).double(), (b - centre).double()
        lengths = from_a.norm(dim=-1, keepdim=True) * from_b.norm(dim=-1, keepdim=True)
        cosine = (from_a * from_b).sum(-1, keepdim=True) / lengths.clamp_min(torch.finfo(torch.float64).tiny)
        angle = cosine.clamp(-1, 1).acos()
        sine = angle.sin()
        straight = (sine < 1e-6) | (lengths == 0)
        safe = torch.where(straight, torch.ones_like(sine), sine)
        first = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / safe)
        second = torch.where(straight, t, (t * angle).sin() / safe)
    points = (centre + first * (a - centre).double() + second * (b - centre).double()).to(a.dtype)
    points[..., 0, :], points[..., -1, :] = a[..., 0, :], b[..., 0, :]
    return points


def interpolate(
    flow: Flow,
    a: Tensor,
    b: Tensor,
    y: int | None = None,
    *,
    steps: int = 9,
    way: Way = "spherical",
    batch_size: int = 64,
    advance: Advance = silent,
) -> Tensor:
    """Images on the way from a to b.

    Args:
        flow: A flow over images.
        a: Images ``uint8 (B, C, H, W)``, where the ways begin.
        b: As many, where they end.
        y: One label for all, of a conditional flow.
        steps: Images on each way, both ends included.
        way: ``"linear"`` or ``"spherical"``, see :func:`between`.
        batch_size: Images computed at a time.
        advance: Called after each batch with the number of images done, B encoded pairs and B x steps decoded.

    Returns:
        ``uint8 (B, steps, C, H, W)``; the ends are a and b, as the flow reconstructs them.

    Raises:
        InputError: The images do not fit, or a point on the way has no finite image.
    """
    require_images(flow, "interpolation")
    require_count("steps", steps, least=2)
    if len(a) != len(b):
        raise InputError(f"{len(a)} images begin ways and {len(b)} end them; expected as many.")
    ends = encode(flow, torch.cat((a, b)), y, batch_size=batch_size, advance=advance)
    points = between(ends[: len(a)], ends[len(a) :], steps, way, flow.base.centre)
    images = decode(flow, points.flatten(0, 1), y, batch_size=batch_size, advance=advance)
    return images.reshape(len(a), steps, *images.shape[1:])
