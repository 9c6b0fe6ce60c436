"""The file format: a header, the images' names, and chunks of images that are each checked on their own.

======== ======= ==========================================================================================
bytes    type    meaning
======== ======= ==========================================================================================
4        bytes   ``FLZ1``
2        uint16  codec version
4 + n+4  block   header: JSON with ``model``, ``weights`` (SHA-256), ``shape`` [C, H, W], ``count``, ``named``
4 + n+4  block   only if ``named``: the names, joined by newlines, deflated
per chunk
2        uint16  images in it, 1 to 256
4        uint32  CRC-32 of their pixels, uint8 (B, C, H, W) in C order
4        uint32  w, 32-bit words of the stream
4 w      bytes   the stream
======== ======= ==========================================================================================

Integers are little-endian. A block is its length (uint32), its bytes and their CRC-32. The last chunk ends the file.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from flowzoo.errors import IntegrityError

MAGIC = b"FLZ1"
CODEC_VERSION = 1
CHUNK_IMAGES = 256

_MOST_HEADER = 1 << 16
_MOST_NAMES = 1 << 28
_MOST_NAME = 1024
_MOST_PART = 251
"""Bytes of a name between two slashes: file systems take 255, and .png comes after the last one."""
_MOST_MODEL = 200
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", flags=re.IGNORECASE)
"""Names that Windows takes for devices."""
_CHUNK = struct.Struct("<HII")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says about itself.

    Attributes:
        model: Name of the model it was written with.
        weights: SHA-256 of that model's config and weights.
        shape: (C, H, W) of every image.
        count: Number of images.
        named: Whether the images have names.
    """

    model: str
    weights: str
    shape: tuple[int, int, int]
    count: int
    named: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some images of a file: their number, the CRC-32 of their pixels, and the stream that holds them."""

    count: int
    crc: int
    stream: bytes

    def packed(self) -> bytes:
        """The chunk as it stands in a file."""
        return _CHUNK.pack(self.count, self.crc, len(self.stream) // 4) + self.stream


def opening(header: Header, names: Sequence[str] = ()) -> bytes:
    """All of a file that comes before its chunks."""
    text = json.dumps(asdict(header), ensure_ascii=True, separators=(",", ":"))
    parts = [MAGIC, struct.pack("<H", CODEC_VERSION), _block(text.encode())]
    if header.named:
        parts.append(_block(zlib.compress("\n".join(names).encode(), 9)))
    return b"".join(parts)


def _block(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content + struct.pack("<I", zlib.crc32(content))


class Reader:
    """A file that is being read; nothing is believed, and nothing is allocated, before the file has the bytes for it.

    Attributes:
        header: What it says about itself.
        names: The images' names, relative paths with ``/`` and without suffix; empty if they have none.
        path: Where it is.
    """

    def __init__(self, handle: BinaryIO, path: Path) -> None:
        """Reads everything before the chunks.

        Args:
            handle: The file, at its beginning.
            path: Its name for errors.

        Raises:
            IntegrityError: It is no such file, of a newer version, cut off or damaged.
        """
        self._handle = handle
        self.path = path
        self._size = os.fstat(handle.fileno()).st_size
        if self._size < len(MAGIC) or handle.read(len(MAGIC)) != MAGIC:
            raise self._wrong("is no file of `flowzoo compress` (it does not begin with FLZ1)", "")
        (version,) = struct.unpack("<H", self._take(2, "version"))
        if version != CODEC_VERSION:
            raise self._wrong(
                f"has codec version {version}, and this flowzoo reads version {CODEC_VERSION}",
                "Update flowzoo.",
            )
        self.header = self._header(self._read_block(_MOST_HEADER, "header"))
        self.names = self._names() if self.header.named else ()

    def chunks(self) -> Iterator[Chunk]:
        """The chunks in their order.

        Raises:
            IntegrityError: The file is cut off or damaged, or has more or fewer images than its header says.
        """
        left = self.header.count
        while left:
            count, crc, words = _CHUNK.unpack(self._take(_CHUNK.size, "a chunk"))
            if not 1 <= count <= min(CHUNK_IMAGES, left):
                raise self._wrong(f"is damaged: a chunk claims {count} images where {left} are left")
            left -= count
            yield Chunk(count, crc, self._take(4 * words, "a chunk"))
        if self._handle.read(1):
            raise self._wrong("is damaged: there is something after its last image")

    def damaged(self, first: int, count: int) -> IntegrityError:
        """The error for images that do not decode to the pixels that were compressed."""
        return self._wrong(
            f"is damaged: images {first} to {first + count - 1} do not have the pixels on record"
        )

    def _take(self, size: int, what: str) -> bytes:
        if size > self._size - self._handle.tell():
            raise self._wrong(f"is cut off in {what}")
        return self._handle.read(size)

    def _read_block(self, most: int, what: str) -> bytes:
        (length,) = struct.unpack("<I", self._take(4, what))
        if length > most:
            raise self._wrong(f"is damaged: its {what} claims {length:,} bytes")
        content = self._take(length, what)
        (crc,) = struct.unpack("<I", self._take(4, what))
        if zlib.crc32(content) != crc:
            raise self._wrong(f"is damaged: the CRC-32 of its {what} is another")
        return content

    def _header(self, content: bytes) -> Header:
        try:
            raw: Any = json.loads(content)
            header = Header(**{**raw, "shape": tuple(raw["shape"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._wrong("is damaged: its header cannot be read") from error
        if not _is_sound(header.model, header.weights, header.shape, header.count, header.named):
            raise self._wrong("is damaged: its header has impossible values")
        return header

    def _names(self) -> tuple[str, ...]:
        content = self._read_block(_MOST_NAMES, "list of names")
        room = min(_MOST_NAMES, self.header.count * _MOST_NAME)
        inflater = zlib.decompressobj()
        try:
            text = inflater.decompress(content, room).decode()
        except (zlib.error, UnicodeDecodeError) as error:
            raise self._wrong("is damaged: its list of names cannot be read") from error
        names = tuple(text.split("\n"))
        if not inflater.eof or len(names) != self.header.count or len(set(names)) != len(names):
            raise self._wrong("is damaged: it has not one name for each image")
        bad = next((name for name in names if not is_safe(name)), None)
        if bad is not None:
            raise self._wrong(f"names an image {bad[:80]!r}, which is no path below a directory")
        return names

    def _wrong(self, what: str, mend: str = "Copy it again from where it is whole.") -> IntegrityError:
        return IntegrityError(f"{self.path} {what}. {mend} Nothing was written.".replace("  ", " "))


def _is_sound(
    model: object, weights: object, shape: tuple[object, ...], count: object, named: object
) -> bool:
    """Whether the values of a header have the types and ranges of one; JSON may hold anything."""
    # Both texts are shown in messages, which are one line.
    texts = isinstance(model, str) and model.isprintable() and 0 < len(model) <= _MOST_MODEL
    digest = isinstance(weights, str) and re.fullmatch(r"[0-9a-f]{64}", weights) is not None
    counts = len(shape) == 3 and all(type(n) is int and n > 0 for n in (*shape, count))
    return texts and digest and counts and isinstance(named, bool)


def is_safe(name: str) -> bool:
    """Whether a name stays below the directory it is joined to, on any system."""
    path = PurePosixPath(name)
    return (
        0 < len(name) <= _MOST_NAME
        and name.isprintable()
        and not any(letter in name for letter in "\\:\0")
        and not path.is_absolute()
        and str(path) == name
        and ".." not in path.parts
        and name != "."
        and all(map(_is_safe_part, path.parts))
    )


def _is_safe_part(part: str) -> bool:
    """Whether a file system takes a name between two slashes, and none takes it for another one."""
    short = len(part.encode()) <= _MOST_PART
    return short and not part.endswith((".", " ")) and _DEVICES.fullmatch(part) is None
