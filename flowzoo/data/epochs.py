"""Batches for a training loop of one's own: images or vectors with their labels, an epoch at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flowzoo.data.images import ImageSet
from flowzoo.data.pipeline import TrainBatches
from flowzoo.data.registry import get_dataset
from flowzoo.data.vectors import VectorSet
from flowzoo.errors import InputError

__all__ = ["Batches", "as_set", "batches"]


def as_set(
    data: Any,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
    *,
    labels: Any = None,
) -> ImageSet:
    """Returns data, in whatever form they are given, as a set of images or vectors.

    Args:
        data: A set; or a data set's id such as ``"mnist"`` or ``"points:two-moons"``; or a tensor or array, uint8
            images (N, C, H, W) or floating-point vectors (N, D); or such a one with its labels, as a pair.
        split: The split of a data set that is given by its id.
        root: Where data sets are; see :func:`flowzoo.data.data_root`.
        labels: Whole numbers (N,) of a tensor or array.

    Raises:
        InputError: It is none of these.
        FlowzooError: The data set is unknown, or not here.
    """
    if isinstance(data, str):
        return get_dataset(data).load(split, root)
    if isinstance(data, ImageSet):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        data, labels = data
    tensor = _tensor(data)
    kind = ImageSet if tensor.dtype == torch.uint8 and tensor.ndim == 4 else VectorSet
    if kind is VectorSet and not (tensor.is_floating_point() and tensor.ndim == 2):
        raise InputError(
            f"The data are {tensor.dtype} {tuple(tensor.shape)}; expected uint8 images (N, C, H, W) or floating-point "
            "vectors (N, D)."
        )
    return kind(tensor.cpu(), id="given", split=split, labels=labels)


def _tensor(data: Any) -> Tensor:
    try:
        return torch.as_tensor(data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The data are a {type(data).__name__}; expected a data set's id, an ImageSet, a tensor or array, or a "
            "pair of such a one and its labels."
        ) from error


class Batches:
    """Shuffled batches, one epoch each time that it is gone through.

    The order is a function of (seed, epoch), the augmentation of (seed, step). ``len`` is the number of batches in an
    epoch; what would not fill one is left out of that epoch.

    Attributes:
        data: The set that the batches are of.
    """

    def __init__(self, data: ImageSet, stream: TrainBatches) -> None:
        self.data, self._stream = data, stream

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self._stream.epoch

    def state(self) -> dict[str, int]:
        """The position as plain integers, for a checkpoint of one's own."""
        return self._stream.state()

    def restore(self, state: dict[str, int]) -> None:
        """Goes to a position that :meth:`state` returned; the next loop goes through the rest of that epoch.

        Raises:
            CheckpointError: It is a position in another stream.
        """
        self._stream.restore(state)

    def __len__(self) -> int:
        return self._stream.steps_per_epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        epoch = self._stream.epoch
        try:
            while self._stream.epoch == epoch:
                batch = next(self._stream)
                yield batch.images, batch.labels
        finally:
            self._stream.close()


def batches(
    data: Any,
    batch_size: int = 64,
    *,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    augment: str | tuple[str, ...] | list[str] = "none",
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """Batches of a data set for a training loop of one's own.

    Args:
        data: A data set's id such as ``"mnist"``, a set, a tensor or array, or a pair of one and its labels; see
            :func:`as_set`.
        batch_size: Items in the joint batch of all processes.
        split: The split of a data set that is given by its id.
        root: Where data sets are.
        seed: Of order and augmentation.
        augment: Augmentations by name, as in a recipe.
        device: Where the batches go.
        rank: This process.
        world_size: Number of processes; each gets its share of every batch.

    Returns:
        An object to go through again for each epoch. It gives pairs: uint8 images (B, C, H, W) or float32 vectors
        (B, D), and labels int64 (B,), or None where there are none.

    Raises:
        InputError: The data are none of these, or fewer than a batch.
        FlowzooError: The data set is unknown, or not here.
    """
    found = as_set(data, split, root)
    stream = TrainBatches(
        found, batch_size, seed, device=device, rank=rank, world_size=world_size, augment=augment
    )
    return Batches(found, stream)
