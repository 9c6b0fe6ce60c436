"""Reading a foreign checkpoint as named tensors, and nothing else."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowzoo.errors import InputError
from flowzoo.registry.isolation import describe

WRAPPERS = ("net", "model", "state_dict", "model_state_dict", "ema")
"""Under which names training scripts put the state dict beside epoch and optimizer."""

WRAPPINGS = ("module.", "_orig_mod.")
"""The words that torch's data-parallel wrappers and its compiler put before every name."""

_PARAMETRIZED = re.compile(r"parametrizations\.weight\.original([01])")


@dataclass(frozen=True)
class Source:
    """A checkpoint that has been read.

    Attributes:
        tensors: The tensors on the CPU, by the names that the model's own code gives them.
        notes: Choices made on the way, in words.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_source(path: Path, state: str | None = None) -> Source:
    """Reads a checkpoint's tensors by name.

    Args:
        path: A file of ``torch.save`` with a state dict in it, or an ``.npz`` of arrays.
        state: The name of the state dict in the file, where it holds several.

    Returns:
        The tensors, without the ``module.`` of data-parallel training and the ``_orig_mod.`` of compilation in their
        names, and under the older names of weight normalization.

    Raises:
        InputError: The file is missing, damaged, holds something else than tensors, or several state dicts.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is not a file; give a checkpoint saved by torch.save, or an .npz of arrays."
        )
    if _is_npz(path):
        if state is not None:
            raise InputError(f"--state was given, and {path} is an .npz of one set of arrays; leave it out.")
        tensors, left_out = _read_arrays(path), list[str]()
    else:
        tensors, left_out = _tensors(_state_dict(_read_torch(path), path, state), path)
    if not tensors:
        raise InputError(f"{path} holds no tensor; give the file that holds the model's state dict.")
    for wrapping in WRAPPINGS:
        if all(name.startswith(wrapping) for name in tensors):
            tensors = {name.removeprefix(wrapping): tensor for name, tensor in tensors.items()}
    named = {_PARAMETRIZED.sub(_older_name, name): tensor for name, tensor in tensors.items()}
    if len(named) < len(tensors):
        raise InputError(f"{path} holds a weight normalization under its older and its newer name; keep one.")
    more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
    shown = ", ".join(repr(name) for name in left_out[:5])
    return Source(named, (f"Left out, for they are no tensors: {shown}{more}.",) if left_out else ())


def _older_name(match: re.Match[str]) -> str:
    """``weight_g`` (length) or ``weight_v`` (direction), for ``parametrizations.weight.original0`` or ``1``."""
    return "weight_g" if match[1] == "0" else "weight_v"


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
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            # Old files and old protocols are what this is for.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise InputError(
            f"{path} does not read as tensors alone, and flowzoo runs no code from a checkpoint "
            f"({_cause(error)}). Where you trust the file, load it with its own program and save "
            "torch.save(model.state_dict(), ...); then convert that."
        ) from error


def _harmless() -> list[Any]:
    """Names that a training script's numbers and arguments need: NumPy's numbers and arrays, and a Namespace.

    None of them runs anything that the file chooses.
    """
    scalar: Any = np.float64(0).__reduce__()[0]
    reconstruct: Any = np.zeros(1).__reduce__()[0]
    functions = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in (scalar, reconstruct)
        for core in ("core", "_core")
    ]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    return [*functions, np.dtype, np.ndarray, *kinds, argparse.Namespace]


def _cause(error: Exception) -> str:
    """The cause alone: torch's own message goes on to recommend reading the file with its code."""
    name = re.search(r"GLOBAL ([\w.]*\w)", str(error))
    return (
        f"it needs {name[1]}" if name else f"it is damaged, or no file of torch.save: {type(error).__name__}"
    )


def _state_dict(loaded: Any, path: Path, state: str | None) -> Mapping[Any, Any]:
    """The state dict in what a training script saved."""
    if not isinstance(loaded, Mapping):
        raise InputError(
            f"{path} holds a {type(loaded).__name__}; expected a state dict, or a dictionary with one under "
            f"{', '.join(map(repr, WRAPPERS))}."
        )
    inside = {key: value for key, value in loaded.items() if _holds_tensors(value)}
    if state is not None:
        if state not in inside:
            there = ", ".join(map(repr, inside)) or "none"
            raise InputError(f"{path} holds no state dict called {state!r}; it holds {there}.")
        chosen: Mapping[Any, Any] = inside[state]
        return chosen
    known = [key for key in WRAPPERS if key in inside]
    if len(known) > 1:
        raise InputError(
            f"{path} holds more than one state dict: {', '.join(map(repr, known))}. They are different models, such "
            f"as weights and their moving averages; say which with --state {known[0]}."
        )
    if len(inside) == 1 and not _holds_tensors(loaded):
        known = list(inside)
    found: Mapping[Any, Any] = inside[known[0]] if known else loaded
    return found


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(item, Tensor | np.ndarray) for item in value.values()
    )


def _tensors(loaded: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a state dict, and the names of what else is in it."""
    tensors: dict[str, Tensor] = {}
    other: list[str] = []
    for name, value in loaded.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            tensors[str(name)] = torch.from_numpy(np.array(value))
        elif isinstance(value, Tensor):
            tensors[str(name)] = value
        else:
            other.append(str(name))
    if other and not tensors:
        raise InputError(
            f"{path} holds {other[0]!r}, which is no tensor; expected a state dict, or a dictionary with one "
            f"under {', '.join(map(repr, WRAPPERS))}."
        )
    return tensors, other
