"""Points drawn from the densities of :mod:`flowzoo.data.point_densities`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.api import SPLITS, Dataset
from flowzoo.data.point_densities import DENSITIES

__all__ = ["draw", "read"]

_SEED = 0


def draw(name: str, split: str, size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draws a split, keyed by the density's name and the split, so that no split shares a point with another.

    Returns:
        Points, float32 (N, D), and the part of the figure that each belongs to, int64 (N,).
    """
    points, part = DENSITIES[name].draw((_SEED, *name.encode(), SPLITS.index(split)), size)
    return points.astype(np.float32), part


def read(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor | tuple[Tensor, Tensor]:
    """Draws a split.

    Returns:
        float32 (N, D), with the parts as labels, int64 (N,), where they have names.
    """
    size = dataset.split(split).size
    assert size is not None
    points, part = (torch.from_numpy(array) for array in draw(dataset.options["density"], split, size))
    return (points, part) if dataset.label_names else points
