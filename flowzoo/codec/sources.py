"""The images to compress: files and folders as they are, or a split of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowzoo.codec.container import CHUNK_IMAGES, is_safe
from flowzoo.data.images import ImageSet
from flowzoo.data.readers.folder import find_images
from flowzoo.errors import InputError

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode of an image with this many channels."""


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """Images of a data set; they have no names."""

    images: ImageSet

    names = ()

    def __len__(self) -> int:
        return len(self.images)

    def batches(self) -> Iterator[Tensor]:
        """The images, uint8 ``(B, C, H, W)``."""
        for first in range(0, len(self.images), CHUNK_IMAGES):
            yield self.images.batch(torch.arange(first, min(first + CHUNK_IMAGES, len(self.images))))


@dataclass(frozen=True, slots=True)
class FileSource:
    """Images in files, one of them read at a time.

    Attributes:
        paths: The files.
        names: A name for each, without suffix.
        image_shape: (C, H, W) that each must have.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    image_shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self) -> Iterator[Tensor]:
        """The images, uint8 ``(1, C, H, W)``."""
        for path in self.paths:
            yield read_exactly(path, self.image_shape)[None]


def find_files(sources: Sequence[Path], image_shape: tuple[int, ...], limit: int | None = None) -> FileSource:
    """Lists the images in files and below folders, in the order given, a folder's by relative path.

    Args:
        sources: Files and folders.
        image_shape: (C, H, W) of the model.
        limit: Only the first of them.

    Raises:
        InputError: One is absent, there are none, or two would have one name.
    """
    found: list[tuple[Path, str]] = []
    for source in sources:
        if source.is_dir():
            found += [(path, path.relative_to(source).as_posix()) for path in find_images(source)]
        elif source.is_file():
            found.append((source, source.name))
        else:
            raise InputError(
                f"{source} is no file and no folder; name images, folders of them, or one data set."
            )
    found = found[:limit]
    if not found:
        raise InputError(f"there are no images in {', '.join(map(str, sources))}.")
    stems = Counter(_without_suffix(name) for _, name in found)
    # Of a.png and a.jpg both keep their suffix.
    names = [name if stems[stem := _without_suffix(name)] > 1 else stem for _, name in found]
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise InputError(
            f"two images would be named {twice!r}; put them into one folder with names of their own."
        )
    bad = next((name for name in names if not is_safe(name)), None)
    if bad is not None:
        raise InputError(f"an image is named {bad[:80]!r}, which not every system allows; rename it.")
    return FileSource(tuple(path for path, _ in found), tuple(names), image_shape)


def read_exactly(path: Path, image_shape: tuple[int, ...]) -> Tensor:
    """The pixels of an image, uint8 ``(C, H, W)``; nothing is resized, cropped or converted.

    Raises:
        InputError: It cannot be read, or is of another size or kind than the model's.
    """
    channels, height, width = image_shape
    try:
        with Image.open(path) as image:
            mode, size = image.mode, image.size
            pixels = np.array(image) if (mode, size) == (MODES[channels], (width, height)) else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the image {path}: {error}") from error
    if pixels is None:
        kind = {1: "grey", 3: "RGB"}[channels]
        raise InputError(
            f"{path} is {size[0]}x{size[1]} of mode {mode}; this model compresses {width}x{height} {kind} images, and "
            "nothing is resized or converted where nothing may be lost."
        )
    return torch.from_numpy(pixels).view(height, width, channels).permute(2, 0, 1).contiguous()


def _without_suffix(name: str) -> str:
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix and path.stem else name
