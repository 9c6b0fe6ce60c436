"""Model weights in and out: safetensors with one line of canonical JSON, checked to the last tensor.

The writer streams tensor by tensor and its bytes depend on nothing but its arguments. The reader
trusts nothing: not the header, not the names, shapes or types, not the values.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowzoo.atomic import Chunk, write_chunks
from flowzoo.errors import IntegrityError
from flowzoo.weights.plain_files import open_regular, parse_json, shown
from flowzoo.weights.safetensors_header import Header, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

__all__ = [
    "Header",
    "check_header",
    "load_weights",
    "read_header",
    "read_metadata",
    "read_tensors",
    "save_weights",
    "write_tensors",
]

METADATA_KEY = "flowzoo"
"""The one key of the safetensors metadata: several would be written in an order that varies."""

NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""The format's own name of a type -> torch's."""

FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


def save_weights(
    flow: torch.nn.Module | Mapping[str, torch.Tensor],
    path: str | Path,
    metadata: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
) -> tuple[str, int]:
    """Writes a model's state as safetensors, atomically and with reproducible bytes.

    Args:
        flow: A module, or a state dict.
        path: The file to write.
        metadata: JSON values for the header, such as architecture and config.
        dtype: Stored type of floating tensors; None keeps each as it is.

    Returns:
        The file's SHA-256 (64 hex digits) and its size in bytes.

    Raises:
        IntegrityError: A value is not finite, or overflows ``dtype``.
        CheckpointError: The disk refuses; an older file at ``path`` is intact.
    """
    import torch

    state = flow.state_dict() if isinstance(flow, torch.nn.Module) else dict(flow)
    if dtype is not None:
        state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
    for name, tensor in state.items():
        _check_finite(name, tensor, f"Not writing {path}")
    return write_tensors(Path(path), state, metadata)


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> tuple[str, int]:
    """Writes tensors and JSON metadata as safetensors; returns SHA-256 and size.

    Raises:
        CheckpointError: The disk refuses; an older file at ``path`` is intact.
    """
    return write_chunks(path, _chunks(tensors, metadata))


def _chunks(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> Iterator[Chunk]:
    import torch

    codes = {getattr(torch, name): code for code, name in NAMES.items()}
    # Wide items first keeps every tensor aligned without padding, which the format does not allow.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: text}}
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": codes[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield struct.pack("<Q", len(encoded)) + encoded
    for name in order:
        flat = tensors[name].detach().to("cpu").contiguous().reshape(-1)
        if flat.numel():
            yield flat.view(torch.uint8).numpy().data


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns the JSON that a weights file was saved with; empty for files that flowzoo did not write.

    Raises:
        IntegrityError: The file is missing or not a sound safetensors file.
    """
    return _metadata(_header(Path(path)), Path(path))


def _header(path: Path) -> Header:
    try:
        return read_header(path)
    except OSError as error:
        raise _bad(path, f"it cannot be read ({error})") from error


def _metadata(header: Header, path: Path) -> dict[str, Any]:
    try:
        parsed = parse_json(header.metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise _bad(path, f"its flowzoo metadata is not JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise _bad(path, "its flowzoo metadata is not a JSON object")
    return parsed


def load_weights(
    flow: torch.nn.Module, path: str | Path, *, stored_dtype: str | None = None
) -> dict[str, Any]:
    """Loads a weights file into ``flow``; all of it, or nothing and an error.

    Names and shapes must equal the model's. Floating tensors may be stored in any floating type
    (they are cast to the model's); all others must have the model's type. Every value must be finite
    and every ``initialized`` buffer true. A model on the meta device gets the file's tensors.

    Args:
        flow: The model, built from the same config.
        path: A safetensors file.
        stored_dtype: The floating dtype that the file must have, such as ``"float16"``; None for any.

    Returns:
        The metadata that the file was saved with.

    Raises:
        IntegrityError: Anything differs; the model is unchanged.
    """
    path = Path(path)
    header = _header(path)
    wanted = flow.state_dict()
    check_header(header, wanted, path, stored_dtype=stored_dtype)
    loaded = _tensors_of(header, path)
    for name, tensor in loaded.items():
        _check_finite(name, tensor, f"{path} is not usable")
        if name.rpartition(".")[2] == "initialized" and not bool(tensor.all()):
            raise _bad(
                path, f"{name!r} is false: it was saved before the model saw data; train it, then export"
            )
    meta = any(tensor.is_meta for tensor in wanted.values())
    if meta:
        loaded = {n: t.to(wanted[n].dtype) for n, t in loaded.items()}
    flow.load_state_dict(loaded, strict=True, assign=meta)
    return _metadata(header, path)


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a safetensors file, whatever model they are of, on the CPU and in memory of their own.

    Raises:
        IntegrityError: The file is missing, damaged, or has a type that torch lacks.
    """
    return _tensors_of(_header(Path(path)), Path(path))


def _tensors_of(header: Header, path: Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a checked header.

    Mapping the file would be shorter, and end the whole process if the file is cut while it is read.
    """
    import torch

    tensors = {}
    try:
        with open_regular(path) as file:
            for name, info in header.tensors.items():
                if info.dtype not in NAMES:
                    raise _bad(path, f"{shown(name)} has the type {info.dtype}, which is not read here")
                flat = torch.empty(info.end - info.begin, dtype=torch.uint8)
                file.seek(info.begin)
                if flat.numel() and file.readinto(flat.numpy().data) != flat.numel():
                    raise _bad(path, "it was cut while it was read")
                tensors[name] = flat.view(getattr(torch, NAMES[info.dtype])).reshape(info.shape)
    except OSError as error:
        raise _bad(path, f"it cannot be read ({error})") from error
    return tensors


def check_header(
    header: Header,
    wanted: Mapping[str, torch.Tensor],
    path: str | Path,
    *,
    stored_dtype: str | None = None,
) -> None:
    """Checks that a file's names, shapes and dtypes are those of a model's state dict.

    Raises:
        IntegrityError: They are not; the message lists what differs.
    """
    path = Path(path)
    missing, surplus = sorted(set(wanted) - set(header.tensors)), sorted(set(header.tensors) - set(wanted))
    if missing or surplus:
        raise _bad(
            path, f"tensors missing: {_some(missing)}; tensors the model does not have: {_some(surplus)}"
        )
    for name, info in header.tensors.items():
        model, stored = wanted[name], NAMES.get(info.dtype, info.dtype)
        if info.shape != tuple(model.shape):
            raise _bad(path, f"{name!r} has shape {info.shape}; the model's is {tuple(model.shape)}")
        expected = str(model.dtype).removeprefix("torch.")
        if stored != expected and not (stored in FLOATS and expected in FLOATS):
            raise _bad(path, f"{name!r} is {stored}; the model's is {expected}")
        if stored_dtype is not None and stored in FLOATS and stored != stored_dtype:
            raise _bad(path, f"{name!r} is stored as {stored}; expected {stored_dtype}")


def _check_finite(name: str, tensor: torch.Tensor, what: str) -> None:
    if not tensor.is_floating_point():
        return
    # No sum with a NaN or an infinity in it is finite, and summing is ten times as fast as looking at each value;
    # a sum may also overflow.
    if not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
        raise IntegrityError(f"{what}: {name!r} holds NaN or infinity; use weights from before it diverged.")


def _some(names: list[str]) -> str:
    few = (
        ", ".join(name if len(name) <= 80 and name.isprintable() else shown(name) for name in names[:5])
        or "none"
    )
    return f"{few} and {len(names) - 5} more" if len(names) > 5 else few


def _bad(path: Path, what: str) -> IntegrityError:
    return IntegrityError(
        f"{path} is not a usable weights file: {what}. Expected the safetensors file of exactly this model; "
        "fetch or export it again."
    )
