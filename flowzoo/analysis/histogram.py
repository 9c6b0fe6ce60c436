"""Histograms of scores of one set or several, drawn with Pillow alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flowzoo.analysis.curves import COLOURS, FAINT, INK, ticks
from flowzoo.atomic import write_chunks
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["save_histogram"]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 24, 24, 46, 54
BINS = 48


def save_histogram(
    sets: Mapping[str, Tensor], path: str | Path, *, title: str = "", unit: str = "bits per dimension"
) -> None:
    """Draws each set's counts in 48 equal bins as steps over each other, into a PNG, atomically.

    The fullest bin of each set has the full height, so that sets of different sizes can be compared.

    Args:
        sets: Finite values ``(N,)`` of each set by its name.
        path: The file.
        title: Text above.
        unit: Of the values.

    Raises:
        InputError: There is nothing to draw, or a value is not finite.
        CheckpointError: The file cannot be written.
    """
    from PIL import Image, ImageDraw

    values = torch.cat([found.double() for found in sets.values()]) if sets else torch.empty(0)
    if not len(values) or not bool(values.isfinite().all()):
        raise InputError("a histogram needs finite values; there are none, or some are not finite.")
    low, high = float(values.min()), float(values.max())
    pad = 0.02 * (high - low) or 0.5
    low, high = low - pad, high + pad
    shares = {name: torch.histc(v.double(), BINS, low, high) / max(1, len(v)) for name, v in sets.items()}
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture, "RGBA")
    _draw_axis(pen, low, high, title, unit)
    for i, (name, share) in enumerate(shares.items()):
        colour = COLOURS[i % len(COLOURS)]
        _draw_steps(pen, share / share.max(), colour)
        label = f"{name}  ({len(sets[name]):,})"
        pen.text((WIDTH - RIGHT, TOP + 20 * i), label, fill=colour, anchor="ra", font=_font(13))
    buffer = io.BytesIO()
    picture.quantize(64).save(buffer, "PNG", optimize=True)
    write_chunks(Path(path), [buffer.getvalue()])


def _draw_steps(pen: Any, share: Tensor, colour: tuple[int, int, int]) -> None:
    floor, span = HEIGHT - BOTTOM, HEIGHT - TOP - BOTTOM
    width = (WIDTH - LEFT - RIGHT) / len(share)
    outline = [(LEFT, floor)]
    for i, value in enumerate(share.tolist()):
        y = floor - round(span * value)
        outline += [(round(LEFT + i * width), y), (round(LEFT + (i + 1) * width), y)]
    outline.append((WIDTH - RIGHT, floor))
    pen.polygon(outline, fill=(*colour, 70))
    pen.line(outline, fill=colour, width=2)


def _draw_axis(pen: Any, low: float, high: float, title: str, unit: str) -> None:
    floor = HEIGHT - BOTTOM
    for value in ticks(low, high, 8):
        x = LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        pen.line([(x, TOP), (x, floor)], fill=FAINT)
        pen.text((x, floor + 8), f"{value:g}", fill=INK, anchor="ma", font=_font(13))
    pen.line([(LEFT, floor), (WIDTH - RIGHT, floor)], fill=INK)
    pen.text((LEFT, 12), title, fill=INK, font=_font(16))
    pen.text((WIDTH - RIGHT, HEIGHT - 22), unit, fill=INK, anchor="ra", font=_font(13))


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
