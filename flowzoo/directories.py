"""Directories of results: held by one process at a time, replaced as a whole, and only if empty or ours."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

from flowzoo.atomic import TEMPORARY, new_directory
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["exclusive", "replaced_directory"]


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds a directory while it is changed; waits for a process that holds it, and ends with this process.

    The lock is on the directory itself, so that it leaves no file behind.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replaced_directory(path: Path, ours: Callable[[Path], bool], what: str) -> Iterator[Path]:
    """Yields a temporary directory that takes the place of ``path`` when the block ends well.

    Before, what a killed process left beside ``path`` is removed. After an error, or when killed, ``path`` is as it
    was.

    Args:
        path: A directory that is missing, empty or ours.
        ours: Whether an earlier call wrote the directory; asked if it holds anything.
        what: What ours are, in words, for the error.

    Raises:
        InputError: The directory holds something else.
        CheckpointError: The disk refuses.
    """
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is not a directory; name another.")
    found = sorted(file.name for file in path.iterdir()) if path.exists() else []
    found = [name for name in found if not name.startswith(TEMPORARY)]
    if found and not ours(path):
        raise InputError(
            f"{path} holds other files ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''}); expected an empty "
            f"directory or {what}. Nothing was changed: name another directory, or empty this one."
        )
    _remove_abandoned(path)
    with new_directory(path) as temporary, exclusive(temporary):
        yield temporary


def _remove_abandoned(path: Path) -> None:
    """Removes what killed processes left beside ``path``: whatever of that name nobody holds."""
    if not path.parent.is_dir():
        return
    for left in path.parent.glob(f"{TEMPORARY}*-{path.name[:50]}"):
        if left.is_symlink() or not left.is_dir():
            continue
        descriptor = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # another process is writing it
        finally:
            os.close(descriptor)
