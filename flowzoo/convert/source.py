"""Reading a foreign checkpoint as named tensors, and nothing else."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowzoo.errors import InputError
from flowzoo.registry.isolation import describe

WRAPPERS = ("net", "model", "state_dict", "model_state_dict", "ema")
"""Under which names training scripts put the state dict beside epoch and optimizer."""

PARALLEL = "module."
"""The words that torch's data-parallel wrappers and its compiler put before every name."""


def read_source(path: Path) -> dict[str, Tensor]:
    """Reads a checkpoint's tensors by name.

    Args:
        path: A file of ``torch.save`` with a state dict in it, or an ``.npz`` of arrays.

    Returns:
        The tensors on the CPU, the ``module.`` of data-parallel training removed from their names.

    Raises:
        InputError: The file is missing, damaged, or holds something else than tensors.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is not a file; give a checkpoint saved by torch.save, or an .npz of arrays."
        )
    state = _read_arrays(path) if _is_npz(path) else _state_dict(_read_torch(path), path)
    if not state:
        raise InputError(f"{path} holds no tensor; give the file that holds the model's state dict.")
    if all(name.startswith(PARALLEL) for name in state):
        state = {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
    return state


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_arrays(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    except Exception as error:  # a damaged or hostile file makes the reader raise anything
        raise InputError(
            f"{path} does not read as plain arrays ({describe(error)}); save numbers alone with numpy.savez, "
            "one array a variable."
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # Old files and old protocols are what this is for.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise InputError(
            f"{path} does not read as tensors alone, and flowzoo runs no code from a checkpoint "
            f"({_cause(error)}). Where you trust the file, load it with its own program and save "
            "torch.save(model.state_dict(), ...); then convert that."
        ) from error


def _cause(error: Exception) -> str:
    """The cause alone: torch's own message goes on to recommend reading the file with its code."""
    name = re.search(r"GLOBAL ([\w.]*\w)", str(error))
    return (
        f"it needs {name[1]}" if name else f"it is damaged, or no file of torch.save: {type(error).__name__}"
    )


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a training script saved."""
    if isinstance(loaded, Mapping):
        for key in WRAPPERS:
            inner = loaded.get(key)
            if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
                loaded = inner
                break
    if not isinstance(loaded, Mapping):
        raise InputError(
            f"{path} holds a {type(loaded).__name__}; expected a state dict, or a dictionary with one under "
            f"{', '.join(map(repr, WRAPPERS))}."
        )
    other = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    if other:
        raise InputError(
            f"{path} holds {other[0]!r}, which is no tensor; expected a state dict, or a dictionary with one "
            f"under {', '.join(map(repr, WRAPPERS))}."
        )
    return {str(name): value for name, value in loaded.items()}
