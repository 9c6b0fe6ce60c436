"""Downsampled ImageNet, both releases, from the files that users have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.api import Dataset
from flowzoo.data.images import ImageSource, Selected
from flowzoo.data.layout import open_npy
from flowzoo.data.pickled_arrays import read_pickled_arrays
from flowzoo.data.readers.folder import FileImages, find_images
from flowzoo.data.readers.npy import array_images, in_memory_if_small
from flowzoo.data.readers.npz import npz_names, open_npz_array
from flowzoo.errors import InputError, IntegrityError

__all__ = ["read"]


def read(
    dataset: Dataset, split: str, paths: tuple[Path, ...]
) -> tuple[Tensor | ImageSource, NDArray[np.int64] | None]:
    """Reads a split; ``valid`` is the last ``dataset.options["valid"]`` training images in their order.

    Args:
        dataset: One of the downsampled ImageNet sets; its options say the size, the arrays' names and whether
            flat rows are channels-first.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        paths: A folder of PNG files, one ``.npy`` file, ``.npz`` archives, or pickled batches without a
            suffix.

    Returns:
        Images, and labels (N,) from 0 where every file holds them (the release counts from 1), else None.

    Raises:
        IntegrityError: if a file is damaged or holds other images.
    """
    whole, labels = (_folder(dataset, paths[0]), None) if paths[0].is_dir() else _arrays(dataset, paths)
    if split == "test":
        return in_memory_if_small(whole), labels
    count, held_out = whole.shape[0], int(dataset.options["valid"])
    if count <= held_out:
        raise InputError(
            f"{paths[0]} and its like hold {count} images; {held_out} of them are to be held out."
        )
    chosen = torch.arange(count)[-held_out:] if split == "valid" else torch.arange(count)[:-held_out]
    return in_memory_if_small(Selected(whole, chosen)), None if labels is None else labels[chosen.numpy()]


def _folder(dataset: Dataset, path: Path) -> ImageSource:
    size = int(dataset.options["size"])
    return FileImages(find_images(path), crop="square", size=size, channels=3)


def _arrays(dataset: Dataset, paths: tuple[Path, ...]) -> tuple[ImageSource, NDArray[np.int64] | None]:
    arrays, labels = [], []
    for path in paths:
        if path.suffix == ".npy":
            arrays.append(open_npy(path))
        elif path.suffix == ".npz":
            arrays.append(open_npz_array(path, dataset.options["arrays"]))
            if dataset.label_names and "labels" in npz_names(path):
                found = open_npz_array(path, ("labels",))
                labels.append(found[np.arange(len(found))])
        else:
            pickled = read_pickled_arrays(path.read_bytes(), path)
            if "data" not in pickled:
                raise IntegrityError(f"{path} holds no array 'data': get the file again.")
            arrays.append(pickled["data"])
            if dataset.label_names and "labels" in pickled:
                labels.append(pickled["labels"])
    images = array_images(arrays, int(dataset.options["size"]), paths[0], bool(dataset.options["flat"]))
    complete = len(labels) == len(paths)
    return images, np.concatenate(labels).astype(np.int64) - 1 if complete else None
