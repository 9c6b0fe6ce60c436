"""Data sets and their exact preprocessing.

Listing and describing data sets needs no torch; it is imported when pixels are read.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flowzoo.data.api import SPLITS, Dataset, Split, data_root
from flowzoo.data.registry import discover_datasets, get_dataset, list_datasets, reset_datasets

if TYPE_CHECKING:
    from flowzoo.data.epochs import Batches, batches
    from flowzoo.data.images import ImageSet, ImageSource
    from flowzoo.data.pipeline import Batch, EvalBatch, TrainBatches, eval_batches
    from flowzoo.data.vectors import VectorSet

__all__ = [
    "SPLITS",
    "Batch",
    "Batches",
    "Dataset",
    "EvalBatch",
    "ImageSet",
    "ImageSource",
    "Split",
    "TrainBatches",
    "VectorSet",
    "batches",
    "data_root",
    "discover_datasets",
    "eval_batches",
    "get_dataset",
    "list_datasets",
    "reset_datasets",
]

_WITH_TORCH = {
    "ImageSet": "flowzoo.data.images",
    "ImageSource": "flowzoo.data.images",
    "Batch": "flowzoo.data.pipeline",
    "Batches": "flowzoo.data.epochs",
    "EvalBatch": "flowzoo.data.pipeline",
    "TrainBatches": "flowzoo.data.pipeline",
    "VectorSet": "flowzoo.data.vectors",
    "batches": "flowzoo.data.epochs",
    "eval_batches": "flowzoo.data.pipeline",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(importlib.import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
