"""Images in ``.npy`` files, whose rows are read when they are asked for where the file is large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.api import Dataset
from flowzoo.data.images import ImageSource, Selected
from flowzoo.data.layout import CHANNELS_FIRST, CHANNELS_LAST, IN_MEMORY_BYTES, array_layout, open_npy
from flowzoo.data.splitting import EmptySplit, choose, split_of
from flowzoo.data.stored import StoredArray
from flowzoo.errors import IntegrityError

__all__ = ["ArrayImages", "array_images", "in_memory_if_small", "read_own", "read_ranges"]

_BLOCK_BYTES = 64 << 20


class ArrayImages:
    """Images in one or more arrays, in memory or in files.

    Args:
        arrays: uint8, each (N, H, W), (N, H, W, C) or (N, C, H, W), images of one shape.
        layout: ``"nhwc"`` or ``"nchw"``.
    """

    def __init__(self, arrays: Sequence[NDArray[np.uint8] | StoredArray], layout: str) -> None:
        self._arrays, self._layout = list(arrays), layout
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])
        first = arrays[0].shape[1:]
        channels_last = (*first, 1) if len(first) == 2 else first
        height, width, channels = (
            channels_last
            if layout == CHANNELS_LAST
            else (channels_last[1], channels_last[2], channels_last[0])
        )
        self.shape: tuple[int, int, int, int] = (int(self._starts[-1]), channels, height, width)

    def batch(self, indices: Tensor) -> Tensor:
        """Returns the images at ``indices``, uint8 (B, C, H, W)."""
        wanted = indices.numpy()
        _, channels, height, width = self.shape
        out = np.empty((len(wanted), channels, height, width), dtype=np.uint8)
        owner = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(owner):
            here = owner == number
            pixels = self._arrays[number][wanted[here] - self._starts[number]]
            if pixels.ndim == 3:
                pixels = pixels[..., None]
            out[here] = pixels if self._layout == CHANNELS_FIRST else pixels.transpose(0, 3, 1, 2)
        return torch.from_numpy(out)


def in_memory_if_small(source: ImageSource) -> Tensor | ImageSource:
    """Reads a source into memory if it holds at most :data:`flowzoo.data.layout.IN_MEMORY_BYTES`."""
    count, channels, height, width = source.shape
    small = count * channels * height * width <= IN_MEMORY_BYTES
    return source.batch(torch.arange(count)) if small else source


def read_own(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor | ImageSource:
    """Reads ``numpy:FILE.npy``, split by the SHA-256 of each image's pixels, (C, H, W) in C order.

    Raises:
        InputError: if no image falls into the split.
    """
    source = ArrayImages([open_npy(paths[0])], dataset.options["layout"])
    count = source.shape[0]
    if dataset.options["all"]:
        if not count:
            raise EmptySplit(f"{dataset.id!r} is empty: {paths[0]} holds no image.")
        return in_memory_if_small(source)
    advice = "or try things out with all images in every split (?split=all)."
    return in_memory_if_small(
        Selected(source, torch.tensor(choose(_splits(source), split, dataset.id, advice)))
    )


def _splits(source: ImageSource) -> list[str]:
    """The split of every image, read through in blocks."""
    count, *shape = source.shape
    step = max(1, _BLOCK_BYTES // max(1, math.prod(shape)))
    return [
        split_of(image.numpy().data)
        for start in range(0, count, step)
        for image in source.batch(torch.arange(start, min(start + step, count)))
    ]


def read_ranges(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor | ImageSource:
    """Reads positions ``dataset.options["ranges"][split]`` of an ``.npy`` file (N, H, W, C)."""
    source = ArrayImages([open_npy(paths[0])], CHANNELS_LAST)
    start, stop = dataset.options["ranges"][split]
    if stop > source.shape[0]:
        raise IntegrityError(
            f"{paths[0]} holds {source.shape[0]} images, expected at least {stop}: get the file again."
        )
    return in_memory_if_small(Selected(source, torch.arange(start, stop)))


def array_images(
    arrays: Sequence[NDArray[Any] | StoredArray], size: int, where: Path, flat: bool
) -> ArrayImages:
    """Makes a source of arrays of RGB images of one size.

    Args:
        arrays: uint8, each (N, size, size, 3), (N, 3, size, size), or (N, 3 size^2) with the channels first.
        size: Side of the images in pixels.
        where: Their file or folder, for the error.
        flat: Whether flat rows are known to be channels-first in this release.

    Raises:
        IntegrityError: if an array is of another type or shape.
    """
    shaped, layouts = [], set()
    for array in arrays:
        rows = array.reshape(-1, 3, size, size) if flat and array.shape[1:] == (3 * size * size,) else array
        if rows.dtype != np.uint8 or rows.shape[1:] not in ((3, size, size), (size, size, 3)):
            raise IntegrityError(
                f"{where} holds an array of {array.dtype} {array.shape}, expected uint8 images of "
                f"3x{size}x{size}."
            )
        shaped.append(rows)
        layouts.add(array_layout(rows.shape, str(where))[0])
    if len(layouts) != 1:
        raise IntegrityError(f"{where} mixes arrays (N, H, W, C) and (N, C, H, W).")
    return ArrayImages(shaped, layouts.pop())
