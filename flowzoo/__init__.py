"""flowzoo: the model zoo for normalizing flows.

Everything here is imported when it is first used, so that ``import flowzoo`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowzoo.evaluation.of_flow import evaluate as evaluate
    from flowzoo.factory import create as create
    from flowzoo.flow import Flow as Flow
    from flowzoo.manifest.read import list_models as list_models
    from flowzoo.registry import list_architectures as list_architectures
    from flowzoo.training.saving import save as save
    from flowzoo.training.train import train as train
    from flowzoo.weights.load import load as load

__version__ = "0.1.0"

__all__ = [
    "Flow",
    "__version__",
    "create",
    "evaluate",
    "list_architectures",
    "list_models",
    "load",
    "save",
    "train",
]

_HOME = {
    "Flow": "flowzoo.flow",
    "create": "flowzoo.factory",
    "evaluate": "flowzoo.evaluation.of_flow",
    "list_architectures": "flowzoo.registry",
    "list_models": "flowzoo.manifest.read",
    "load": "flowzoo.weights.load",
    "save": "flowzoo.training.saving",
    "train": "flowzoo.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'flowzoo' has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
