"""One array of an ``.npz`` archive, with a bound on what a small archive can make the reader allocate."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flowzoo.data.layout import IN_MEMORY_BYTES
from flowzoo.data.paths import is_regular
from flowzoo.data.stored import NpyHeader, StoredArray, parse_npy_header
from flowzoo.data.survey import listed
from flowzoo.errors import DataUnavailable, InputError, IntegrityError

__all__ = ["npz_names", "open_npz_array"]

_MAX_MEMBERS = 1_000
_MAX_RATIO = 20
"""Pictures do not deflate further; up to :data:`IN_MEMORY_BYTES` any ratio is accepted."""
_READ_BYTES = 8 << 20


def open_npz_array(path: Path, names: Sequence[str] = ()) -> NDArray[Any] | StoredArray:
    """Opens an array of an ``.npz`` archive: left in the file if stored, read into memory if deflated.

    Args:
        path: The archive.
        names: Names to look for, in this order; none: the only array there is.

    Returns:
        The array, of uint8 if it is left in the file.

    Raises:
        DataUnavailable: if it is not a file.
        IntegrityError: if the archive is damaged, has no such array, or claims more than it can hold.
        InputError: if there is not enough memory.
    """
    if not is_regular(path):
        raise DataUnavailable(f"{path} is not a regular file. Get the archive again.")
    try:
        with zipfile.ZipFile(path) as archive:
            info = _member(path, archive.infolist(), names)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"its member {info.filename!r} is neither stored nor deflated")
            with archive.open(info) as member:
                header = parse_npy_header(member)  # type: ignore[arg-type]
                _check_size(path, info, header, member.tell())
                if (
                    info.compress_type == zipfile.ZIP_STORED
                    and not header.fortran
                    and header.dtype == np.uint8
                ):
                    return StoredArray(path, _data_start(path, info) + member.tell(), header.shape)
                return _read(path, member, header)  # type: ignore[arg-type]
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise IntegrityError(f"{path} is not a complete npz archive: {error}. Get the file again.") from error


def npz_names(path: Path) -> tuple[str, ...]:
    """Returns the names of the arrays in an ``.npz`` archive.

    Raises:
        IntegrityError: if it is not an archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist()[:_MAX_MEMBERS])
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise IntegrityError(f"{path} is not a complete npz archive: {error}. Get the file again.") from error


def _member(path: Path, infos: list[zipfile.ZipInfo], names: Sequence[str]) -> zipfile.ZipInfo:
    if len(infos) > _MAX_MEMBERS:
        raise ValueError(f"it has {len(infos)} members, expected at most {_MAX_MEMBERS}")
    members = {info.filename.removesuffix(".npy"): info for info in infos}
    name = next((name for name in names if name in members), None)
    if name is None and len(members) == 1:
        name = next(iter(members))
    if name is None:
        found = listed([name[:80] for name in members], 20)
        raise IntegrityError(f"{path} holds the arrays {found}; expected one of {', '.join(names)}.")
    return members[name]


def _check_size(path: Path, info: zipfile.ZipInfo, header: NpyHeader, header_bytes: int) -> None:
    """Compares what the array claims with what the archive can hold, before anything is allocated."""
    claimed, packed = header.num_bytes, min(info.compress_size, path.stat().st_size)
    if claimed > info.file_size - header_bytes:
        raise ValueError(f"its array claims {claimed} bytes, its member has {info.file_size - header_bytes}")
    stored = info.compress_type == zipfile.ZIP_STORED
    if claimed > (packed if stored else max(IN_MEMORY_BYTES, _MAX_RATIO * packed)):
        raise ValueError(f"its array claims {claimed} bytes, packed into {packed}, which no images are")


def _read(path: Path, member: BinaryIO, header: NpyHeader) -> NDArray[Any]:
    try:
        content = bytearray(header.num_bytes)
    except MemoryError as error:
        raise InputError(
            f"{path} needs {header.num_bytes} bytes of memory, since it is compressed, and they are not to be had: "
            "save the array with numpy.save as .npy instead."
        ) from error
    into = memoryview(content)
    while into:
        block = member.read(min(_READ_BYTES, len(into)))
        if not block:
            raise EOFError("its array ends too early")
        into[: len(block)] = block
        into = into[len(block) :]
    count = math.prod(header.shape)
    array = np.frombuffer(content, dtype=header.dtype, count=count)
    return array.reshape(header.shape, order="F" if header.fortran else "C")


def _data_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after its local header, whose last two fields vary in length."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    return (
        info.header_offset
        + 30
        + int.from_bytes(lengths[:2], "little")
        + int.from_bytes(lengths[2:], "little")
    )
