"""Prepared copies: a split's pixels as one ``.npy`` file (N, C, H, W), which can be memory-mapped.

Decoding 160,000 JPEGs or inflating gigabytes of npz in every run would starve the device, so ``flowzoo data
prepare`` does it once. The copy lies beside its SHA-256 and its labels, under a folder named after the preprocessing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.api import Dataset, prepared_path
from flowzoo.data.images import ImageSet, ImageSource
from flowzoo.data.layout import CHANNELS_FIRST, map_npy
from flowzoo.data.readers.npy import MappedImages, in_memory_if_small
from flowzoo.errors import InputError

__all__ = ["digest_path", "labels_path", "prepare", "read_prepared"]

_BATCH = 1024


def digest_path(prepared: Path) -> Path:
    """Where the SHA-256 of a prepared copy's pixels is kept."""
    return prepared.with_suffix(".sha256")


def labels_path(prepared: Path) -> Path:
    """Where the labels of a prepared copy are kept, int64 (N,), if there are any."""
    return prepared.with_suffix(".labels.npy")


def read_prepared(path: Path) -> tuple[Tensor | ImageSource, NDArray[np.int64] | None]:
    """Reads a prepared copy: images, into memory if they are small, else memory-mapped; and labels, or None."""
    images = in_memory_if_small(MappedImages([map_npy(path)], CHANNELS_FIRST))
    return images, np.load(found, allow_pickle=False) if (found := labels_path(path)).is_file() else None


def prepare(
    dataset: Dataset,
    split: str,
    root: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes the prepared copy of a split.

    Args:
        dataset: A data set read from files.
        split: The split.
        root: Data root.
        progress: Called with the images done and their total number.

    Returns:
        The copy's path. It appears only when it is complete.

    Raises:
        InputError: if the set is the user's own or needs no files.
        DataUnavailable: if the split is missing.
        IntegrityError: if its files are not the official ones.
    """
    if ":" in dataset.id or not dataset.split(split).alternatives:
        raise InputError(
            f"The {split} split of {dataset.id!r} is read as it is; there is nothing to prepare."
        )
    path = prepared_path(dataset, split, root)
    images = dataset.load(split, root, prepared=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        if images.labels is not None:
            np.save(labels_path(path), images.labels.numpy())
        digest = _write(images, partial, progress)
        digest_path(path).write_text(digest + "\n", encoding="ascii")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write(images: ImageSet, partial: Path, progress: Callable[[int, int], None]) -> str:
    digest = hashlib.sha256()
    with partial.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(images), _BATCH):
            block = images[start : start + _BATCH].contiguous().numpy().tobytes()
            digest.update(block)
            file.write(block)
            progress(min(start + _BATCH, len(images)), len(images))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
