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


def read(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> tuple[Tensor, Tensor]:
    """Reads a split; ``valid`` is the last ``dataset.options["valid"]`` images of the training files.

    Returns:
        Images, uint8 (N, 3, 32, 32), and labels, int64 (N,).

    Raises:
        IntegrityError: if a file is not a batch of CIFAR-10 images.
    """
    parts = [_binary(path) if path.suffix == ".bin" else _pickled(path) for path in paths]
    images = torch.from_numpy(np.concatenate([rows for rows, _ in parts]).reshape(-1, 3, 32, 32))
    labels = torch.from_numpy(np.concatenate([found for _, found in parts]).astype(np.int64))
    if split == "test":
        return images, labels
    held_out = int(dataset.options["valid"])
    part = slice(-held_out, None) if split == "valid" else slice(-held_out)
    return images[part], labels[part]


def _pickled(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Rows of 3072 pixels (1024 red, 1024 green, 1024 blue, each row by row), and their labels."""
    arrays = read_pickled_arrays(path.read_bytes(), path)
    rows, labels = arrays.get("data"), arrays.get("labels")
    if rows is None or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != _PIXELS:
        found = "no array 'data'" if rows is None else f"'data' of {rows.dtype} {rows.shape}"
        raise IntegrityError(
            f"{path} holds {found}, expected 'data' of uint8 (N, {_PIXELS}): get the file again."
        )
    if labels is None or labels.shape != (len(rows),):
        raise IntegrityError(
            f"{path} holds no list 'labels' of {len(rows)} whole numbers, one an image: get the file again."
        )
    return rows, labels


def _binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Records of one label byte and 3072 pixels in the same order as the pickled release's."""
    content = np.fromfile(path, dtype=np.uint8)
    if content.size == 0 or content.size % (_PIXELS + 1):
        raise IntegrityError(
            f"{path} has {content.size} bytes, expected a multiple of {_PIXELS + 1} (a label and an image): "
            "get the file again."
        )
    records = content.reshape(-1, _PIXELS + 1)
    return records[:, 1:], records[:, 0]
