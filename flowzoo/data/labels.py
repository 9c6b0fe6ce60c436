"""Labels: the class of every item of a split, checked once when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowzoo.errors import InputError

__all__ = ["checked_labels", "missing_labels"]


def checked_labels(labels: Any, count: int, names: tuple[str, ...], where: str) -> Tensor:
    """Returns labels as a tensor, once they are known to be labels.

    Args:
        labels: Whole numbers from 0, (N,): a tensor, an array or a list.
        count: Number of items that they belong to.
        names: Names of the classes; empty if any number of classes is right.
        where: Whose labels these are, for the error.

    Returns:
        int64 (N,), on the CPU.

    Raises:
        InputError: if they are not whole numbers, are not one an item, or name a class that is not there.
    """
    array = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"The labels of {where} are {array.dtype} of shape {array.shape}; expected whole numbers, one an item."
        )
    if len(array) != count:
        raise InputError(
            f"There are {len(array)} labels for the {count} items of {where}; expected one an item."
        )
    last = len(names) - 1 if names else np.iinfo(np.int64).max
    wrong = np.flatnonzero((array < 0) | (array > last))
    if len(wrong):
        known = f"0 to {last}" if names else "0 or more"
        raise InputError(f"Item {wrong[0]} of {where} has the label {array[wrong[0]]}; expected {known}.")
    return torch.from_numpy(array.astype(np.int64))


def missing_labels(dataset: str, split: str, named: bool) -> str:
    """The message for whoever asks for labels that are not there.

    Args:
        dataset: Id of the data set.
        split: The split.
        named: Whether the data set's description promises labels, so that only these files lack them.
    """
    if named:
        return (
            f"The files of the {split} split of {dataset!r} hold no labels, as the release does. Put its label files "
            f"beside the images; a copy that was prepared without labels is made anew by 'flowzoo data prepare'."
        )
    return (
        f"The data set {dataset!r} has no labels. 'flowzoo data list' shows which sets have; of images of your own, "
        "folder:DIR?size=N&labels=folders takes the subfolders' names, numpy:FILE.npz its array 'labels'."
    )
