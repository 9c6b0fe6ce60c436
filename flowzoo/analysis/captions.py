"""Grids of images with a title, and names of rows, columns and single images, drawn with Pillow alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowzoo.analysis.grids import grid
from flowzoo.atomic import write_chunks
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

__all__ = ["captioned_grid", "enlargement", "save_gif", "save_picture"]

INK, FAINT, PAPER = (35, 35, 35), (105, 105, 105), "white"
SMALL, LARGE, GAP = 11, 14, 6
"""Sizes of letters, and the space between images, in pixels."""


def enlargement(images: Tensor) -> int:
    """The whole-number factor that makes small images large enough to be seen, 56 pixels or so."""
    return max(1, 56 // max(images.shape[-2:]))


def captioned_grid(
    images: Tensor,
    columns: int,
    *,
    title: str = "",
    rows: Sequence[str] = (),
    headings: Sequence[str] = (),
    captions: Sequence[str] = (),
    scale: int | None = None,
) -> Image:
    """Lays images out row by row, with words around them.

    Args:
        images: uint8 ``(N, C, H, W)`` with one or three channels.
        columns: Images in a row.
        title: A line above all.
        rows: A name to the left of each row.
        headings: A name above each column.
        captions: A line under each image.
        scale: Whole-number enlargement; chosen by the images' size if not given.

    Returns:
        An RGB picture.

    Raises:
        InputError: The images cannot be shown.
    """
    from PIL import Image, ImageDraw

    one = grid(images[:1], 1, 0)  # checks the images
    scale = scale or enlargement(images)
    height, width = one.shape[0] * scale, one.shape[1] * scale
    count = -(-len(images) // columns)
    under = SMALL + 5 if captions else 0
    left = GAP + max((_width(name, SMALL) for name in rows), default=-GAP) + GAP
    top = GAP + (LARGE + 10 if title else 0) + (SMALL + 6 if headings else 0)
    inside = columns * (width + GAP)
    whole = max(left + inside, _width(title, LARGE) + 2 * GAP)
    picture = Image.new("RGB", (whole, top + count * (height + under + GAP)), PAPER)
    pen = ImageDraw.Draw(picture)
    if title:
        pen.text((GAP, GAP), title, fill=INK, font=_font(LARGE))
    for i, name in enumerate(headings):
        centre = left + i * (width + GAP) + width // 2
        pen.text((centre, top - 5), name, fill=FAINT, font=_font(SMALL), anchor="ms")
    for i, name in enumerate(rows):
        middle = top + i * (height + under + GAP) + height // 2
        pen.text((GAP, middle), name, fill=FAINT, font=_font(SMALL), anchor="lm")
    for i, image in enumerate(images.cpu()):
        x, y = left + i % columns * (width + GAP), top + i // columns * (height + under + GAP)
        picture.paste(_picture(image).resize((width, height), Image.Resampling.NEAREST), (x, y))
        if captions:
            middle = x + width // 2
            pen.text((middle, y + height + 2), captions[i], fill=FAINT, font=_font(SMALL), anchor="ma")
    return picture


def _picture(image: Tensor) -> Image:
    from PIL import Image

    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _width(text: str, size: int) -> int:
    return int(_font(size).getlength(text)) + 1 if text else 0


def save_picture(picture: Image, path: str | Path, facts: Mapping[str, str] | None = None) -> None:
    """Writes a picture as PNG, atomically; with one channel where it is grey.

    Args:
        picture: The picture.
        path: The file, whose name ends with ``.png``.
        facts: Texts that the file states, such as ``temperature``.

    Raises:
        InputError: The name ends otherwise.
        CheckpointError: The file cannot be written.
    """
    from PIL import ImageChops
    from PIL.PngImagePlugin import PngInfo

    if Path(path).suffix.lower() != ".png":
        raise InputError(
            f"a picture is written as PNG; name a file ending with .png, not {Path(path).name!r}."
        )
    info = PngInfo()
    for key, value in (facts or {}).items():
        info.add_text(key, value)
    grey = picture.convert("L")
    coloured = ImageChops.difference(picture.convert("RGB"), grey.convert("RGB")).getbbox()
    shown = picture if coloured else grey
    buffer = io.BytesIO()
    shown.save(buffer, "PNG", pnginfo=info)  # optimize=True saves 3 % and takes six times as long
    write_chunks(Path(path), [buffer.getvalue()])


def save_gif(images: Tensor, path: str | Path, *, milliseconds: int = 90, scale: int | None = None) -> None:
    """Writes images as an animated GIF that runs there and back for ever, atomically.

    Args:
        images: uint8 ``(N, C, H, W)``, the frames.
        path: The file, whose name ends with ``.gif``.
        milliseconds: How long a frame is shown; the first and the last four times as long.
        scale: Whole-number enlargement; chosen by the images' size if not given.

    Raises:
        InputError: The name ends otherwise, or the images cannot be shown.
        CheckpointError: The file cannot be written.
    """
    from PIL import Image

    if Path(path).suffix.lower() != ".gif":
        raise InputError(
            f"an animation is written as GIF; name a file ending with .gif, not {Path(path).name!r}."
        )
    grid(images[:1], 1, 0)
    scale = scale or 2 * enlargement(images)
    size = (images.shape[3] * scale, images.shape[2] * scale)
    way = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    frames = [_picture(images[i].cpu()).resize(size, Image.Resampling.NEAREST) for i in way]
    if images.shape[1] == 1:
        frames = [frame.convert("L") for frame in frames]
    times = [4 * milliseconds if i in (0, len(images) - 1) else milliseconds for i in way]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True
    )
    write_chunks(Path(path), [buffer.getvalue()])
