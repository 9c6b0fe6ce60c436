"""CIFAR-10, from the Python release without unpickling it, or from the binary release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.api import Dataset
from flowzoo.data.pickled_arrays import read_pickled_arrays
from flowzoo.errors import IntegrityError

__all__ = ["read"]

_PIXELS = 3 * 32 * 32


def read(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor:
    """Reads a split; ``valid`` is the last ``dataset.options["valid"]`` images of the training files.

    Returns:
        uint8 (N, 3, 32, 32).

    Raises:
        IntegrityError: if a file is not a batch of CIFAR-10 images.
    """
    rows = np.concatenate([_binary(path) if path.suffix == ".bin" else _pickled(path) for path in paths])
    images = torch.from_numpy(rows.reshape(-1, 3, 32, 32))
    held_out = int(dataset.options["valid"])
    if split == "test":
        return images
    return images[-held_out:] if split == "valid" else images[:-held_out]


def _pickled(path: Path) -> NDArray[np.uint8]:
    """Rows of 3072 pixels: 1024 red, 1024 green, 1024 blue, each row by row."""
    rows = read_pickled_arrays(path.read_bytes(), path).get("data")
    if rows is None or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != _PIXELS:
        found = "no array 'data'" if rows is None else f"'data' of {rows.dtype} {rows.shape}"
        raise IntegrityError(
            f"{path} holds {found}, expected 'data' of uint8 (N, {_PIXELS}): get the file again."
        )
    return rows


def _binary(path: Path) -> NDArray[np.uint8]:
    """Records of one label byte and 3072 pixels in the same order as the pickled release's."""
    content = np.fromfile(path, dtype=np.uint8)
    if content.size == 0 or content.size % (_PIXELS + 1):
        raise IntegrityError(
            f"{path} has {content.size} bytes, expected a multiple of {_PIXELS + 1} (a label and an image): "
            "get the file again."
        )
    return content.reshape(-1, _PIXELS + 1)[:, 1:]
