"""A picture of samples of vectors: a histogram of the first two coordinates, or of the only one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flowzoo.atomic import write_chunks

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["histogram", "save_points"]

_SIDE = 128
_SCALE = 3


def histogram(points: Tensor, side: int = _SIDE) -> Tensor:
    """Counts points in a square of bins that holds all but the outermost hundredth in each coordinate.

    Args:
        points: ``(N, D)``, finite.
        side: Bins in each direction.

    Returns:
        uint8 ``(side, side)``, dark where many are, the second coordinate upwards. Of one coordinate, bars.
    """
    shown = points[:, :2].double().cpu()
    low, high = shown.quantile(0.005, dim=0), shown.quantile(0.995, dim=0)
    place = ((shown - low) / (high - low).clamp_min(1e-12) * side).floor().long()
    place = place[((place >= 0) & (place < side)).all(dim=1)]
    if shown.shape[1] == 1:
        counts = torch.bincount(place[:, 0], minlength=side).double()
        filled = (counts / counts.max().clamp_min(1) * side).round()
        counts2 = (torch.arange(side, 0, -1).view(-1, 1) <= filled).double()
    else:
        index = (side - 1 - place[:, 1]) * side + place[:, 0]
        counts2 = torch.bincount(index, minlength=side * side).view(side, side).double().sqrt()
    shade = counts2 / counts2.max().clamp_min(1e-12)
    return (255 * (1 - shade)).round().to(torch.uint8)


def save_points(points: Tensor, path: Path, *, temperature: float) -> None:
    """Writes the histogram of samples as PNG, atomically, with the temperature as a text in the file.

    Raises:
        CheckpointError: The file cannot be written.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    picture = Image.fromarray(histogram(points).numpy())
    size = picture.width * _SCALE, picture.height * _SCALE
    picture = picture.resize(size, resample=Image.Resampling.NEAREST)
    facts, buffer = PngInfo(), io.BytesIO()
    facts.add_text("temperature", f"{temperature:g}")
    picture.save(buffer, "PNG", pnginfo=facts)
    write_chunks(path, [buffer.getvalue()])
