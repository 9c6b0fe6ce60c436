"""Files that are whole or absent: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING, BinaryIO

from flowzoo.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TEMPORARY = ".partial-"
"""Prefix of everything that is still being written; a killed writer leaves only such names behind."""

Chunk = bytes | bytearray | memoryview


def write_all(handle: BinaryIO, chunk: Chunk) -> None:
    """Writes one chunk to an unbuffered file, however many system calls that takes.

    Raises:
        OSError: The disk is full, a quota is met or the device fails.
    """
    view = memoryview(chunk).cast("B") if memoryview(chunk).nbytes else memoryview(b"")
    while view:
        view = view[handle.write(view) :]


def write_chunks(path: Path, chunks: Iterable[Chunk]) -> tuple[str, int]:
    """Writes chunks to ``path``, atomically and durably.

    Returns:
        The SHA-256 of the file (64 hex digits) and its size in bytes.

    Raises:
        CheckpointError: The file could not be written; what stood at ``path`` before is untouched.
    """
    digest, size = hashlib.sha256(), 0
    with _clear_errors(path), new_file(path) as handle:
        for chunk in chunks:
            write_all(handle, chunk)
            digest.update(chunk)
            size += memoryview(chunk).nbytes
    return digest.hexdigest(), size


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a new, unbuffered file that becomes ``path`` when the block ends well and vanishes when it does not.

    A device, a pipe or a name such as ``/dev/stdout`` is written to and not replaced.

    Raises:
        OSError: The disk refuses; what stood at ``path`` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_written_through(path):
        with path.open("wb", buffering=0) as handle:
            yield handle
        return
    temporary = beside(path)
    try:
        # "x" makes the file or fails: it follows no link that someone put there.
        with temporary.open("xb", buffering=0) as handle:
            yield handle
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def beside(path: Path) -> Path:
    """A fresh name beside ``path`` for something unfinished.

    It is random, since process numbers are the same in every container; and short enough for every file system.
    """
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}-{path.name[:50]}")


def _is_written_through(path: Path) -> bool:
    try:
        kind = path.stat().st_mode
    except OSError:
        return False
    # /dev/stdout may be a link to an ordinary file, and still must not be replaced.
    system = path.parent.resolve().parts[:2] in (("/", "dev"), ("/", "proc")) and not path.is_dir()
    return system or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def write_text(path: Path, text: str) -> tuple[str, int]:
    """Writes UTF-8 text to ``path``, atomically and durably; returns digest and size."""
    return write_chunks(path, [text.encode()])


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary directory that becomes ``path`` when the block ends well.

    An older directory at ``path`` is replaced. After an error the temporary one is removed.

    Raises:
        CheckpointError: The directory could not be written; an older one at ``path`` is untouched.
    """
    temporary = beside(path)
    with _clear_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            yield temporary
            fsync_directory(temporary)
            _swap_in(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_directory(path.parent)


def _swap_in(temporary: Path, path: Path) -> None:
    """Renames a directory into place; an older one is moved aside first, then deleted."""
    if not path.exists():
        temporary.rename(path)
        return
    old = beside(path)
    path.rename(old)
    try:
        temporary.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def fsync_directory(path: Path) -> None:
    """Makes the names in a directory durable; without this a rename may be lost by a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Removes what killed writers left in ``directory``."""
    if not directory.is_dir():
        return
    for path in directory.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "the disk (or the quota) is full" if full else str(error)
        mend = "free some space" if full else "check the path and its permissions"
        raise CheckpointError(
            f"Cannot write {path}: {what}. Files written before are intact; {mend} and start again."
        ) from error
