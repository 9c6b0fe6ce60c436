"""Images and vectors of the user with labels: a folder for each class, or an ``.npz`` archive."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.api import Dataset
from flowzoo.data.images import ImageSource
from flowzoo.data.labelled import load_npz
from flowzoo.data.layout import CHANNELS_FIRST
from flowzoo.data.readers.folder import find_images, read_own
from flowzoo.data.readers.table import rows_of
from flowzoo.data.splitting import EmptySplit
from flowzoo.errors import DataUnavailable, InputError

__all__ = ["Joined", "read_folder", "read_npz"]


class Joined:
    """Images of several sources, one source after the other.

    Args:
        parts: uint8 tensors (N, C, H, W) or sources, images of one shape.
    """

    def __init__(self, parts: list[Tensor | ImageSource]) -> None:
        self._parts = parts
        self._starts = torch.tensor([0, *(part.shape[0] for part in parts)]).cumsum(0)
        _, channels, height, width = parts[0].shape
        self.shape: tuple[int, int, int, int] = (int(self._starts[-1]), channels, height, width)

    def batch(self, indices: Tensor) -> Tensor:
        """Returns the images at ``indices``, uint8 (B, C, H, W)."""
        out = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        owner = torch.searchsorted(self._starts, indices, right=True) - 1
        for number in owner.unique().tolist():
            part, here = self._parts[number], owner == number
            places = indices[here] - self._starts[number]
            out[here] = part[places] if isinstance(part, Tensor) else part.batch(places)
        return out


def read_folder(
    dataset: Dataset, split: str, paths: tuple[Path, ...]
) -> tuple[Tensor | ImageSource, NDArray[np.int64]]:
    """Reads ``folder:DIR?labels=folders``: each class as ``folder:`` reads a folder, one after the other.

    Raises:
        InputError: if an image lies in no class's folder, or in one that the training images do not have.
        DataUnavailable: if the split has no images.
    """
    top, whole = paths[0], dataset.options["all"]
    tops = [top]
    if whole and any((top / part).is_dir() for part in ("train", "valid", "test")):
        tops = [top / part for part in ("train", "valid", "test") if (top / part).is_dir()]
    for folder in tops:
        _check_classes(folder, dataset.label_names)
    parts: list[Tensor | ImageSource] = []
    labels: list[int] = []
    for label, name in enumerate(dataset.label_names):
        for folder in (found for found in (place / name for place in tops) if found.is_dir()):
            own = str(folder) if top == Path(dataset.options["folder"]) else dataset.options["folder"]
            part = dataclasses.replace(dataset, options={**dataset.options, "folder": own})
            try:
                parts.append(read_own(part, split, (folder,)))
            except (DataUnavailable, InputError):
                continue  # no image of this class is in this split
            labels += [label] * parts[-1].shape[0]
    if not parts:
        raise DataUnavailable(f"There are no images for the {split} split of {dataset.id!r} in {top}.")
    images = torch.cat(parts) if all(isinstance(part, Tensor) for part in parts) else Joined(parts)  # type: ignore[arg-type]
    return images, np.array(labels, dtype=np.int64)


def _check_classes(top: Path, names: tuple[str, ...]) -> None:
    for path in find_images(top):
        inside = path.relative_to(top).parts
        if len(inside) < 2 or inside[0] not in names:
            raise InputError(
                f"{path} is in no folder of a class; expected one of {', '.join(names[:10])} in {top}. Move it there, "
                "or leave out labels=folders."
            )


def read_npz(
    dataset: Dataset, split: str, paths: tuple[Path, ...]
) -> tuple[Tensor, NDArray[Any] | None, tuple[str, ...]]:
    """Reads ``numpy:FILE.npz``.

    Raises:
        InputError: if no item falls into the split.
    """
    items, labels, names = load_npz(paths[0])
    if dataset.kind == "vectors":
        items = items.astype(np.float32)
    else:
        items = items if items.ndim == 4 else items[..., None]
        items = items if dataset.options["layout"] == CHANNELS_FIRST else items.transpose(0, 3, 1, 2)
    if labels is not None and len(labels) != len(items):
        raise InputError(
            f"{paths[0]} holds {len(items)} items and {len(labels)} labels; expected one an item."
        )
    chosen = np.arange(len(items)) if dataset.options["all"] else rows_of(items, split)
    if not len(chosen):
        raise EmptySplit(
            f"The {split} split of {dataset.id!r} is empty: its {len(items)} items are split by their content, and "
            "none falls there. Give more, or let every split hold all of them by '?split=all'."
        )
    found = torch.from_numpy(np.ascontiguousarray(items[chosen]))
    return found, None if labels is None else labels[chosen], names
