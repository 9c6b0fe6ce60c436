"""One training a directory: a lock that the kernel frees when its process ends, however that happens."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import socket
from typing import TYPE_CHECKING

from flowzoo.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "only_training"]

LOCK = ".lock"


@contextlib.contextmanager
def only_training(directory: Path) -> Iterator[None]:
    """Holds a run's directory for this process; made if it is not there.

    The file says who holds it. It stays when the training ends: removing it would let two processes hold
    two files of one name. Where the file system has no locks, nothing is held.

    Raises:
        InputError: Another process trains there; the message names it.
        CheckpointError: The directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = (directory / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"Cannot write in {directory}: {error.strerror}. Check the path and its permissions, or choose "
            "another --out."
        ) from error
    with handle:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise InputError(
                    f"{directory} is being trained in by {_holder(handle.read(4096))}. Wait until it ends, stop it "
                    "(Ctrl-C leaves a checkpoint), or choose another --out."
                ) from None
            except OSError:  # a file system without locks
                pass
        started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        facts = {"process": os.getpid(), "host": socket.gethostname(), "since": started}
        with contextlib.suppress(OSError):  # a full disk is an error where something is lost by it
            handle.truncate(0)
            handle.write(json.dumps(facts))
            handle.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                handle.truncate(0)


def _holder(text: str) -> str:
    """The other process in words, from what it wrote into the file."""
    try:
        facts = json.loads(text)
        return f"process {facts['process']} on {facts['host']}, since {facts['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
