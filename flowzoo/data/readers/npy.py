"""Images in ``.npy`` and ``.npz`` files: memory-mapped where they are large and the file allows it."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.api import Dataset
from flowzoo.data.images import ImageSource, Selected
from flowzoo.data.layout import CHANNELS_FIRST, CHANNELS_LAST, array_layout, map_npy
from flowzoo.errors import InputError, IntegrityError

__all__ = [
    "IN_MEMORY_BYTES",
    "MappedImages",
    "in_memory_if_small",
    "npz_names",
    "open_npz_array",
    "read_own",
    "read_ranges",
    "tenths",
]

IN_MEMORY_BYTES = 1 << 30
"""Sets up to this many bytes are read into memory; larger ones stay on disk where their format allows it."""


class MappedImages:
    """Images in one or more arrays, which may be memory maps.

    Args:
        arrays: uint8, each (N, H, W), (N, H, W, C) or (N, C, H, W), images of one shape.
        layout: ``"nhwc"`` or ``"nchw"``.
    """

    def __init__(self, arrays: Sequence[NDArray[np.uint8]], layout: str) -> None:
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
    """Reads a source into memory if it holds at most :data:`IN_MEMORY_BYTES`."""
    count, channels, height, width = source.shape
    small = count * channels * height * width <= IN_MEMORY_BYTES
    return source.batch(torch.arange(count)) if small else source


def tenths(count: int, split: str) -> Tensor:
    """Positions of a split where nobody said which images are held out: by position modulo 10."""
    positions = torch.arange(count)
    rest = positions % 10
    return positions[{"train": rest < 8, "valid": rest == 8, "test": rest == 9}[split]]


def read_own(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor | ImageSource:
    """Reads ``numpy:FILE.npy``."""
    source = MappedImages([map_npy(paths[0])], dataset.options["layout"])
    chosen = torch.arange(source.shape[0]) if dataset.options["all"] else tenths(source.shape[0], split)
    if not len(chosen):
        raise InputError(
            f"The {split} split of {dataset.id!r} is empty: {source.shape[0]} images are too few."
        )
    return in_memory_if_small(Selected(source, chosen))


def read_ranges(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor | ImageSource:
    """Reads positions ``dataset.options["ranges"][split]`` of an ``.npy`` file (N, H, W, C)."""
    source = MappedImages([map_npy(paths[0])], CHANNELS_LAST)
    start, stop = dataset.options["ranges"][split]
    if stop > source.shape[0]:
        raise IntegrityError(
            f"{paths[0]} holds {source.shape[0]} images, expected at least {stop}: get the file again."
        )
    return in_memory_if_small(Selected(source, torch.arange(start, stop)))


def open_npz_array(path: Path, names: Sequence[str] = ()) -> NDArray[Any]:
    """Opens an array of an ``.npz`` archive: memory-mapped if stored, read into memory if compressed.

    Args:
        path: The archive.
        names: Names to look for, in this order; none: the only array there is.

    Returns:
        The array.

    Raises:
        IntegrityError: if the archive is damaged or has no such array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            name = next((name for name in names if name in members), None)
            if name is None and len(members) == 1:
                name = next(iter(members))
            if name is None:
                raise IntegrityError(
                    f"{path} holds the arrays {', '.join(members)}; expected one of {', '.join(names)}."
                )
            info = members[name]
            with archive.open(info) as member:
                if info.compress_type != zipfile.ZIP_STORED:
                    array: NDArray[Any] = npy_format.read_array(member, allow_pickle=False)
                    return array
                shape, fortran, dtype = _header(member)
                offset = member.tell()
        return np.memmap(path, dtype, "r", _data_start(path, info) + offset, shape, "F" if fortran else "C")
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise IntegrityError(f"{path} is not a complete npz archive: {error}. Get the file again.") from error


def npz_names(path: Path) -> tuple[str, ...]:
    """Returns the names of the arrays in an ``.npz`` archive.

    Raises:
        IntegrityError: if it is not an archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise IntegrityError(f"{path} is not a complete npz archive: {error}. Get the file again.") from error


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(member)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it holds objects, not numbers")
    return shape, fortran, dtype


def _data_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after its local header, whose last two fields vary in length."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    return (
        info.header_offset
        + 30
        + int.from_bytes(lengths[:2], "little")
        + int.from_bytes(lengths[2:], "little")
    )


def array_images(arrays: Sequence[NDArray[Any]], size: int, where: Path, flat: bool) -> MappedImages:
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
    return MappedImages(shaped, layouts.pop())
