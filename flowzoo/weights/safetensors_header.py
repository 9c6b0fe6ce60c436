"""Reads and checks the header of a safetensors file without torch and without reading a tensor.

A safetensors file is an unsigned 64-bit little-endian length, a JSON object of that many bytes, and the
tensors' bytes. The object maps a name to ``{"dtype", "shape", "data_offsets": [begin, end]}``, offsets
counting from the end of the header, and ``"__metadata__"`` to strings. Everything the format promises is
checked here: a file that passes has no hole, no overlap, no byte that belongs to nothing, and no name twice.

Source: the format's description in the safetensors project's README.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowzoo.errors import IntegrityError
from flowzoo.weights.plain_files import NotRegular, open_regular, parse_json, shown

__all__ = ["MAX_HEADER_BYTES", "Header", "TensorInfo", "parse_header", "read_header"]

MAX_HEADER_BYTES = 100_000_000
"""Longest header that the format allows, in bytes."""

_BYTES_PER_VALUE = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
_PREFIX_BYTES = 8
_TENSOR_KEYS = {"dtype", "shape", "data_offsets"}
_MAX_SIZE = 2**63 - 1
_MAX_AXES = 64


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header describes it.

    Attributes:
        dtype: The format's own name of the type, such as ``"F32"`` or ``"BOOL"``.
        shape: Sizes of the axes; empty for a scalar.
        begin: Offset of the first byte, counted from the start of the file.
        end: Offset just after the last byte, counted from the start of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header.

    Attributes:
        tensors: Name to description, in the order of the tensors' bytes.
        metadata: The free strings that travel with the file.
        data_begin: Where the tensors' bytes start, counted from the start of the file.
        size: The file's size in bytes.
    """

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_begin: int
    size: int

    @property
    def num_values(self) -> int:
        """Number of scalars in all tensors together."""
        return sum(math.prod(info.shape) for info in self.tensors.values())


def read_header(path: str | os.PathLike[str]) -> Header:
    """Reads and checks the header of a safetensors file.

    Args:
        path: The file; a symbolic link is followed, anything but a regular file is refused.

    Raises:
        IntegrityError: The file is not a well-formed safetensors file.
        OSError: The file cannot be read.
    """
    where = Path(path)
    try:
        opened = open_regular(where)
    except NotRegular:
        raise IntegrityError(f"{where} is not a regular file; give a .safetensors file.") from None
    with opened as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(_PREFIX_BYTES)
        length = _header_length(prefix, size, str(where))
        text = file.read(length)
    return parse_header(prefix + text, size, str(where))


def parse_header(start: bytes, size: int, where: str) -> Header:
    """Checks a header that is already in memory.

    Args:
        start: The file's first bytes, at least to the end of the header.
        size: The whole file's size in bytes.
        where: What is being read, for the error message.

    Raises:
        IntegrityError: The bytes are not the start of a well-formed safetensors file of this size.
    """
    length = _header_length(start[:_PREFIX_BYTES], size, where)
    text = start[_PREFIX_BYTES : _PREFIX_BYTES + length]
    if len(text) < length:
        raise _broken(where, f"its header ends after {len(text)} of {length} bytes")
    data_begin = _PREFIX_BYTES + length
    fields = _parse_json(text, where)
    metadata = _check_metadata(fields.pop("__metadata__", {}), where)
    tensors = {name: _check_tensor(name, value, data_begin, where) for name, value in fields.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end, item[0])))
    _check_layout(ordered, data_begin, size, where)
    return Header(tensors=ordered, metadata=metadata, data_begin=data_begin, size=size)


def _broken(where: str, reason: str) -> IntegrityError:
    return IntegrityError(
        f"{where} is not a sound safetensors file: {reason}. Fetch it again, or ask whoever made it."
    )


def _header_length(prefix: bytes, size: int, where: str) -> int:
    if len(prefix) < _PREFIX_BYTES:
        raise _broken(
            where, f"it has {size} bytes, fewer than the {_PREFIX_BYTES} that give the header's length"
        )
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        if prefix[:4] == b"PK\x03\x04" or prefix[:1] == b"\x80":
            raise _broken(where, "it looks like a pickle or a zip archive, and flowzoo reads neither")
        raise _broken(where, f"it claims a header of {length} bytes; the most allowed is {MAX_HEADER_BYTES}")
    if _PREFIX_BYTES + length > size:
        raise _broken(where, f"it claims a header of {length} bytes and has {size} bytes in all")
    return length


def _parse_json(text: bytes, where: str) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise _broken(where, "its header does not start with '{'")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in pairs:
            if name in result:
                raise _broken(where, f"its header names {shown(name)} twice")
            result[name] = value
        return result

    try:
        # The first byte is '{', so JSON that parses is an object.
        fields: dict[str, Any] = parse_json(text.decode("utf-8"), unique)
    except ValueError as error:
        raise _broken(where, f"its header is not JSON ({error})") from error
    return fields


def _check_metadata(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _broken(where, "its __metadata__ is not an object of strings")
    return value


def _check_tensor(name: str, value: Any, data_begin: int, where: str) -> TensorInfo:
    if not isinstance(value, dict) or set(value) != _TENSOR_KEYS:
        raise _broken(
            where, f"tensor {shown(name)} is not described by exactly dtype, shape and data_offsets"
        )
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES_PER_VALUE:
        raise _broken(where, f"tensor {shown(name)} has the unknown dtype {shown(dtype)}")
    if not _sizes(shape) or len(shape) > _MAX_AXES:
        raise _broken(where, f"tensor {shown(name)} has the impossible shape {shown(shape)}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(where, f"tensor {shown(name)} has the impossible data_offsets {shown(offsets)}")
    needed = math.prod(shape) * _BYTES_PER_VALUE[dtype]
    if needed != offsets[1] - offsets[0]:
        raise _broken(
            where,
            f"tensor {shown(name)} of dtype {dtype} and shape {shown(shape)} needs {needed} bytes and is given "
            f"{offsets[1] - offsets[0]}",
        )
    return TensorInfo(dtype, tuple(shape), data_begin + offsets[0], data_begin + offsets[1])


def _sizes(value: Any) -> bool:
    # bool is an int to Python and never a size.
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= _MAX_SIZE for item in value)


def _check_layout(tensors: dict[str, TensorInfo], data_begin: int, size: int, where: str) -> None:
    position, before = data_begin, "the header"
    for name, info in tensors.items():
        if info.begin < position:
            raise _broken(where, f"tensor {shown(name)} overlaps {before}")
        if info.begin > position:
            raise _broken(
                where,
                f"{info.begin - position} bytes between {before} and tensor {shown(name)} belong to nothing",
            )
        position, before = info.end, f"tensor {shown(name)}"
    if position != size:
        less = "fewer" if size < position else "more"
        raise _broken(where, f"it has {size} bytes, {abs(size - position)} {less} than its header describes")
