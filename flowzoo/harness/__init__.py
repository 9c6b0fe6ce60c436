"""Training and evaluation, the same for every architecture."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowzoo.harness.evaluation import evaluate as evaluate
    from flowzoo.harness.training import train as train

__all__ = ["evaluate", "train"]

_HOME = {"evaluate": "flowzoo.harness.evaluation", "train": "flowzoo.harness.training"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
