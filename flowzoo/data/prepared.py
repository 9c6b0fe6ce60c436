"""Prepared copies: a split's pixels as one ``.npy`` file (N, C, H, W), from which rows are read as they are needed.

Decoding 160,000 JPEGs or inflating gigabytes of npz in every run would starve the device, so ``flowzoo data
prepare`` does it once. The copy lies beside its SHA-256 and its labels, under a folder named after the preprocessing.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.atomic import new_file, write_all, write_chunks, write_text
from flowzoo.data.api import Dataset, prepared_path
from flowzoo.data.images import ImageSet, ImageSource
from flowzoo.data.layout import CHANNELS_FIRST, open_npy
from flowzoo.data.paths import is_regular
from flowzoo.data.readers.npy import ArrayImages, in_memory_if_small
from flowzoo.errors import InputError, IntegrityError

__all__ = ["digest_path", "labels_path", "prepare", "read_prepared"]

_BATCH = 1024
_AGAIN = "Delete it and run 'flowzoo data prepare' again."


def digest_path(prepared: Path) -> Path:
    """Where the SHA-256 of a prepared copy's pixels is kept."""
    return prepared.with_suffix(".sha256")


def labels_path(prepared: Path) -> Path:
    """Where the labels of a prepared copy are kept, int64 (N,), if there are any."""
    return prepared.with_suffix(".labels.npy")


def read_prepared(path: Path) -> tuple[Tensor | ImageSource, NDArray[np.int64] | None]:
    """Reads a prepared copy, after comparing all its pixels with the SHA-256 beside it; rows of a large one stay there.

    Returns:
        The images, and their labels, int64 (N,), or None.

    Raises:
        IntegrityError: if the copy has changed since it was prepared, or there is nothing to compare it with.
    """
    images = ArrayImages([open_npy(path)], CHANNELS_FIRST)
    kept = digest_path(path)
    if not is_regular(kept):
        raise IntegrityError(f"{path} has no {kept.name} beside it, so nothing vouches for it. {_AGAIN}")
    expected = kept.read_bytes()[:65].decode("ascii", "replace").strip()
    source = in_memory_if_small(images)
    found = ImageSet(source).digest
    if found != expected:
        raise IntegrityError(
            f"{path} has changed since it was prepared: expected sha256 {expected}, found {found}. {_AGAIN}"
        )
    return source, _read_labels(labels_path(path))


def _read_labels(path: Path) -> NDArray[np.int64] | None:
    if not is_regular(path):
        return None
    try:
        labels: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise IntegrityError(f"{path} is not a complete .npy file of labels: {error}. {_AGAIN}") from error
    return labels


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
    # The digest and the labels of the array go first: whoever reads a copy finds it vouched for.
    digest = hashlib.sha256()
    with new_file(path) as file:
        for block in _blocks(images, digest, progress):
            write_all(file, block)
        if images.labels is not None:
            buffer = io.BytesIO()
            np.save(buffer, images.labels.numpy())
            write_chunks(labels_path(path), [buffer.getvalue()])
        write_text(digest_path(path), digest.hexdigest() + "\n")
    return path


def _blocks(images: ImageSet, digest: hashlib._Hash, progress: Callable[[int, int], None]) -> Iterator[bytes]:
    """The bytes of an ``.npy`` file; the digest takes in the pixels alone."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": images.shape}
    )
    yield header.getvalue()
    for start in range(0, len(images), _BATCH):
        block = images[start : start + _BATCH].contiguous().numpy().tobytes()
        digest.update(block)
        yield block
        progress(min(start + _BATCH, len(images)), len(images))
