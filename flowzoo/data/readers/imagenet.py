"""Downsampled ImageNet, both releases, from the files that users have."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from flowzoo.data.api import Dataset
from flowzoo.data.images import ImageSource, Selected
from flowzoo.data.layout import open_npy
from flowzoo.data.pickled_arrays import read_pickled_arrays
from flowzoo.data.readers.folder import FileImages, find_images
from flowzoo.data.readers.npy import array_images, in_memory_if_small
from flowzoo.data.readers.npz import open_npz_array
from flowzoo.errors import InputError, IntegrityError

__all__ = ["read"]


def read(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor | ImageSource:
    """Reads a split; ``valid`` is the last ``dataset.options["valid"]`` training images in their order.

    Args:
        dataset: One of the downsampled ImageNet sets; its options say the size, the arrays' names and whether
            flat rows are channels-first.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        paths: A folder of PNG files, one ``.npy`` file, ``.npz`` archives, or pickled batches without a
            suffix.

    Raises:
        IntegrityError: if a file is damaged or holds other images.
    """
    whole = _folder(dataset, paths[0]) if paths[0].is_dir() else _arrays(dataset, paths)
    if split == "test":
        return in_memory_if_small(whole)
    count, held_out = whole.shape[0], int(dataset.options["valid"])
    if count <= held_out:
        raise InputError(
            f"{paths[0]} and its like hold {count} images; {held_out} of them are to be held out."
        )
    chosen = torch.arange(count)
    return in_memory_if_small(Selected(whole, chosen[-held_out:] if split == "valid" else chosen[:-held_out]))


def _folder(dataset: Dataset, path: Path) -> ImageSource:
    size = int(dataset.options["size"])
    return FileImages(find_images(path), crop="square", size=size, channels=3)


def _arrays(dataset: Dataset, paths: tuple[Path, ...]) -> ImageSource:
    arrays = []
    for path in paths:
        if path.suffix == ".npy":
            arrays.append(open_npy(path))
        elif path.suffix == ".npz":
            arrays.append(open_npz_array(path, dataset.options["arrays"]))
        else:
            pickled = read_pickled_arrays(path.read_bytes(), path)
            if "data" not in pickled:
                raise IntegrityError(f"{path} holds no array 'data': get the file again.")
            arrays.append(pickled["data"])
    return array_images(arrays, int(dataset.options["size"]), paths[0], bool(dataset.options["flat"]))
