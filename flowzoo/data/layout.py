"""``.npy`` files of images, and the layout of their axes, known without the pixels. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowzoo.data.paths import is_regular
from flowzoo.data.stored import NpyHeader, StoredArray, parse_npy_header
from flowzoo.errors import DataUnavailable, InputError, IntegrityError

__all__ = [
    "CHANNELS_FIRST",
    "CHANNELS_LAST",
    "IN_MEMORY_BYTES",
    "array_layout",
    "npy_layout",
    "open_npy",
]

CHANNELS_FIRST, CHANNELS_LAST = "nchw", "nhwc"
_CHANNEL_COUNTS = (1, 3)

IN_MEMORY_BYTES = 1 << 30
"""Sets up to this many bytes are read into memory; larger ones stay on disk where their format allows it."""


def open_npy(path: Path) -> StoredArray | NDArray[np.uint8]:
    """Opens an ``.npy`` file of uint8; in C order its rows stay in the file until they are asked for.

    Raises:
        DataUnavailable: if it is not a file.
        IntegrityError: if it is not a complete ``.npy`` file.
        InputError: if it holds anything but uint8, or more in Fortran order than is read into memory.
    """
    if not is_regular(path):
        what = (
            "is not a regular file"
            if os.path.lexists(path)
            else "does not exist: there is no file of that name"
        )
        raise DataUnavailable(f"{path} {what}. Save a uint8 array there with numpy.save.")
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                raise InputError(
                    f"{path} is an archive of several arrays, expected one array saved with numpy.save."
                )
            file.seek(0)
            header, offset = parse_npy_header(file), file.tell()
            present = os.fstat(file.fileno()).st_size - offset
    except (ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise IntegrityError(f"{path} is not a complete .npy file of numbers: {error}.") from error
    if header.dtype != np.uint8:
        raise InputError(
            f"{path} holds {header.dtype}, expected uint8 pixels, or vectors of floats (N, D): convert it first."
        )
    if present < header.num_bytes:
        raise IntegrityError(
            f"{path} is not a complete .npy file: its header promises {header.num_bytes} bytes of numbers, "
            f"{present} are there. Write or get it again."
        )
    if header.fortran and len(header.shape) > 1:
        return _from_fortran(path, header, offset)
    return StoredArray(path, offset, header.shape)


def _from_fortran(path: Path, header: NpyHeader, offset: int) -> NDArray[np.uint8]:
    """The rows of an array whose first axis varies fastest are scattered over the file: it is read whole."""
    if header.num_bytes > IN_MEMORY_BYTES:
        raise InputError(
            f"{path} is in Fortran order and too large to be turned round in memory: save "
            "numpy.ascontiguousarray(array) instead."
        )
    flat = StoredArray(path, offset, (1, header.num_bytes))[np.zeros(1, dtype=np.int64)]
    return np.ascontiguousarray(flat[0].reshape(header.shape, order="F"))


def npy_layout(path: Path, layout: str | None = None) -> tuple[str, tuple[int, int, int]]:
    """Returns the layout and (C, H, W) of the images in an ``.npy`` file; see :func:`array_layout`."""
    return array_layout(open_npy(path).shape, str(path), layout)


def array_layout(
    shape: tuple[int, ...], where: str, layout: str | None = None
) -> tuple[str, tuple[int, int, int]]:
    """Finds out which axis of an array of images is the channels'.

    Args:
        shape: (N, H, W), (N, H, W, C) or (N, C, H, W), with C of 1 or 3.
        where: Where the array comes from, for the error.
        layout: ``"nhwc"`` or ``"nchw"`` if the caller knows, else None.

    Returns:
        The layout (grey images without a channel axis count as ``"nhwc"``), and (C, H, W).

    Raises:
        InputError: if the shape fits neither layout, or both.
    """
    if len(shape) == 3:
        return CHANNELS_LAST, (1, shape[1], shape[2])
    if len(shape) != 4:
        raise InputError(f"{where} has shape {shape}, expected (N, H, W), (N, H, W, C) or (N, C, H, W).")
    fits = [
        name
        for name, axis in ((CHANNELS_LAST, 3), (CHANNELS_FIRST, 1))
        if shape[axis] in _CHANNEL_COUNTS and layout in (None, name)
    ]
    if len(fits) != 1:
        reason = "could be (N, H, W, C) or (N, C, H, W): say which by ?layout=nhwc or ?layout=nchw"
        if not fits:
            reason = "has no axis of 1 or 3 channels where one is due"
        raise InputError(f"{where} has shape {shape}, which {reason}.")
    return fits[0], (shape[3], shape[1], shape[2]) if fits[0] == CHANNELS_LAST else (
        shape[1],
        shape[2],
        shape[3],
    )
