"""The layout of arrays of images, read from an ``.npy`` file's header without its pixels. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowzoo.errors import DataUnavailable, InputError, IntegrityError

__all__ = ["CHANNELS_FIRST", "CHANNELS_LAST", "array_layout", "map_npy", "npy_layout"]

CHANNELS_FIRST, CHANNELS_LAST = "nchw", "nhwc"
_CHANNEL_COUNTS = (1, 3)


def map_npy(path: Path) -> NDArray[np.uint8]:
    """Memory-maps an ``.npy`` file of uint8.

    Raises:
        DataUnavailable: if it does not exist.
        IntegrityError: if it is not a complete ``.npy`` file.
        InputError: if it holds anything but uint8.
    """
    if not path.is_file():
        raise DataUnavailable(f"There is no file {path}. Save a uint8 array there with numpy.save.")
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise IntegrityError(f"{path} is not a complete .npy file of numbers: {error}.") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of several arrays, expected one array saved with numpy.save.")
    if array.dtype != np.uint8:
        raise InputError(f"{path} holds {array.dtype}, expected uint8 pixels 0 to 255: convert it first.")
    return array


def npy_layout(path: Path, layout: str | None = None) -> tuple[str, tuple[int, int, int]]:
    """Returns the layout and (C, H, W) of the images in an ``.npy`` file; see :func:`array_layout`."""
    return array_layout(map_npy(path).shape, str(path), layout)


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
