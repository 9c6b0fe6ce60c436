"""Grids of images as PNG."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from flowzoo.atomic import write_chunks
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def grid(images: Tensor, columns: int | None = None, border: int = 2) -> Tensor:
    """Lays images out row by row.

    Args:
        images: uint8 ``(N, C, H, W)`` with one or three channels.
        columns: Images in a row; None for about as many as there are rows.
        border: Mid-grey pixels between images.

    Returns:
        uint8 ``(H', W', C)`` on the CPU.

    Raises:
        InputError: The images are not of this form, or there are none.
    """
    shown = images.ndim == 4 and images.shape[1] in (1, 3) and len(images) > 0
    if not shown or str(images.dtype) != "torch.uint8":
        raise InputError(
            f"a grid needs uint8 images (N, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}."
        )
    count, channels, height, width = images.shape
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    canvas = images.new_full(
        (rows * (height + border) + border, columns * (width + border) + border, channels), 128, device="cpu"
    )
    for i, image in enumerate(images.cpu().permute(0, 2, 3, 1)):
        top = border + i // columns * (height + border)
        left = border + i % columns * (width + border)
        canvas[top : top + height, left : left + width] = image
    return canvas


def save_grid(
    images: Tensor,
    path: str | Path,
    *,
    columns: int | None = None,
    border: int = 2,
    scale: int | None = None,
    temperature: float | None = None,
) -> None:
    """Writes a grid as PNG, atomically.

    Args:
        images: uint8 ``(N, C, H, W)``.
        path: The file.
        columns: Images in a row.
        border: Pixels between images.
        scale: Whole-number enlargement; None enlarges small images so that they can be seen.
        temperature: Factor on the latents of the images, which the file then states as its text ``temperature``.

    Raises:
        InputError: The images cannot be shown.
        CheckpointError: The file cannot be written.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    canvas = grid(images, columns, border).numpy()
    scale = scale or max(1, 64 // max(images.shape[-2:]))
    picture = Image.fromarray(canvas[:, :, 0] if canvas.shape[2] == 1 else canvas)
    picture = picture.resize(
        (picture.width * scale, picture.height * scale), resample=Image.Resampling.NEAREST
    )
    buffer = io.BytesIO()
    facts = PngInfo()
    if temperature is not None:
        facts.add_text("temperature", f"{temperature:g}")
    picture.save(buffer, "PNG", pnginfo=facts)
    write_chunks(Path(path), [buffer.getvalue()])
