"""Arrays that stay in their file: the header is checked before anything is allocated, rows are read when asked for.

Files are read and not mapped into memory: a mapped file that somebody truncates ends the whole process (SIGBUS),
while a read that comes back short is an error with a name. Torch-free.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from flowzoo.errors import IntegrityError

__all__ = ["NpyHeader", "StoredArray", "parse_npy_header"]

_MAX_AXES = 8
_MAX_LENGTH = 1 << 40
_READ_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """The header of an ``.npy`` file: shape, type, whether the first axis varies fastest, and size in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def num_bytes(self) -> int:
        """Bytes of numbers that follow the header."""
        return math.prod(self.shape) * self.dtype.itemsize


def parse_npy_header(file: BinaryIO) -> NpyHeader:
    """Reads the header of an ``.npy`` file and leaves the file at the first byte of the numbers.

    Raises:
        ValueError: if it is no header, or one of objects or of an impossible shape.
    """
    try:
        version = npy_format.read_magic(file)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except OSError:
        raise
    except Exception as error:
        # NumPy evaluates the header as a literal and refuses odd ones by whatever that raises.
        raise ValueError(f"its header is damaged: {str(error)[:120]}") from error
    if dtype.hasobject:
        raise ValueError("it holds objects, not numbers")
    # True counts as a whole number in Python. Empty rows would let a file of nothing claim any number of images.
    sound = len(shape) <= _MAX_AXES and all(type(size) is int and 0 <= size <= _MAX_LENGTH for size in shape)
    if not sound or 0 in shape[1:]:
        raise ValueError(f"its header claims the shape {str(shape)[:80]}, which no array of images has")
    return NpyHeader(shape, dtype, bool(fortran))


class StoredArray:
    """An array of uint8 in a file, in C order; indexing by positions reads those rows.

    Several threads may read at once.

    Args:
        path: The file.
        offset: Where the first row begins, in bytes.
        shape: (N, ...).
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...]) -> None:
        self._path, self._offset, self.shape = path, offset, shape
        self._file = path.open("rb", buffering=0)

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: int) -> StoredArray:
        """The same rows in another shape; the first number must be -1."""
        return StoredArray(self._path, self._offset, (self.shape[0], *shape[1:]))

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns the rows at ``positions``, int64 (B,), as uint8 (B, ...).

        Raises:
            IntegrityError: if the file has become shorter since it was opened.
        """
        out = np.empty((len(positions), *self.shape[1:]), dtype=np.uint8)
        row_bytes = math.prod(self.shape[1:])
        if out.size == 0:
            return out
        into = out.data.cast("B")
        # Neighbouring rows are read together.
        breaks = np.flatnonzero(np.diff(positions) != 1) + 1
        for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(positions)], strict=True):
            start = self._offset + int(positions[first]) * row_bytes
            self._read(into[first * row_bytes : last * row_bytes], start)
        return out

    def _read(self, into: memoryview, start: int) -> None:
        done = 0
        while done < len(into):
            block = os.pread(self._file.fileno(), min(_READ_BYTES, len(into) - done), start + done)
            if not block:
                raise IntegrityError(
                    f"{self._path} has become shorter while it was read: expected at least "
                    f"{start + len(into)} bytes, found {start + done}. Bring the whole file back and start again."
                )
            into[done : done + len(block)] = block
            done += len(block)
