"""The things that all code of a process shares: streams, import path, working directory, threads."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["kept_surroundings", "leftover_threads", "mute", "output_to_stderr"]

_MAX_PRINTED = 1_000_000

_lock = threading.Lock()
_depth = 0
_kept_streams: tuple[Any, Any] = (None, None)
_leftover: list[threading.Thread] = []
_streams: list[Any] = []
"""Every stream that was sys.stdout: ``print`` in a thread that was given up may still use the one it began with,
without a reference of its own, and would crash the process if it were gone."""


class _Shield:
    """A stream that foreign code may write to, not without end, and cannot close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = _MAX_PRINTED

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, or nothing any more once there was too much."""
        self._left -= len(text)
        return self._stream.write(text) if self._left >= 0 else len(text)

    def close(self) -> None:
        """Does nothing."""


class _Muted:
    """A stream in which one thread cannot be heard."""

    def __init__(self, stream: Any, thread: threading.Thread) -> None:
        self._stream = stream
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, unless the thread does."""
        muted = threading.current_thread() is self._thread
        return len(text) if muted else self._stream.write(text)


def mute(thread: threading.Thread) -> None:
    """Keeps what a thread that nobody waits for any more may still print out of a command's result.

    Inside :func:`output_to_stderr` it mutes the streams that are put back, so that there is no moment in between.
    """
    global _kept_streams  # noqa: PLW0603 - as below
    with _lock:
        if _depth:
            _kept_streams = _muted(_kept_streams, thread)
        else:
            sys.stdout, sys.stderr = _muted((sys.stdout, sys.stderr), thread)


def _muted(streams: tuple[Any, Any], thread: threading.Thread) -> tuple[Any, Any]:
    """Streams in which the thread cannot be heard; None, where the caller closed one, stays."""
    stdout, stderr = (stream and _kept(_Muted(_kept(stream), thread)) for stream in streams)
    return stdout, stderr


def _kept(stream: Any) -> Any:
    """The stream, which now lives as long as the process."""
    _streams.append(stream)
    return stream


@contextlib.contextmanager
def output_to_stderr() -> Iterator[None]:
    """Sends what is printed to stderr, so that it does not mix with a command's result.

    Several threads may be inside at once; the last one out puts the streams back.
    """
    global _depth, _kept_streams  # noqa: PLW0603 - streams are the process's, so is this
    with _lock:
        if _depth == 0:
            _kept_streams = sys.stdout, sys.stderr
            # Python has no stderr if the caller closed it.
            sys.stdout = sys.stderr = _kept(_Shield(sys.stderr or io.StringIO()))
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                sys.stdout, sys.stderr = _kept_streams


@contextlib.contextmanager
def kept_surroundings() -> Iterator[list[str]]:
    """Puts right what the code inside does to its surroundings.

    Yields:
        A list that holds, afterwards, what had to be put right, in words.
    """
    damage: list[str] = []
    path, entries, finders = sys.path, list(sys.path), list(sys.meta_path)
    threads, folder = set(threading.enumerate()), _working_directory()
    try:
        with _kept_descriptors(damage), output_to_stderr():
            yield damage
    finally:
        _restore_imports(path, entries, finders, damage)
        if folder is not None and _working_directory() != folder:
            damage.append("changed the working directory")
            os.chdir(folder)
        left = [thread for thread in threading.enumerate() if thread not in threads and not thread.daemon]
        if left:
            damage.append(f"leaves the thread {left[0].name!r} running, for which every command would wait")
            _leftover.extend(left)


def leftover_threads() -> bool:
    """True if code of a plugin has started a thread that the end of the program would wait for."""
    return any(thread.is_alive() for thread in _leftover)


def _restore_imports(path: list[str], entries: list[str], finders: list[Any], damage: list[str]) -> None:
    """Puts back what is gone from the import path; what was added stays."""
    found: object = sys.path
    now = list(found) if isinstance(found, list) else []
    sys.path = path
    if missing := [entry for entry in entries if entry not in now]:
        damage.append(f"removed {len(missing)} entries of sys.path")
        now = [*entries, *(entry for entry in now if entry not in entries)]
    path[:] = now
    if gone := [finder for finder in finders if finder not in sys.meta_path]:
        damage.append("removed finders of sys.meta_path")
        sys.meta_path.extend(gone)


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - pathlib takes longer to import than this package
    except OSError:  # it was removed
        return None


@contextlib.contextmanager
def _kept_descriptors(damage: list[str]) -> Iterator[None]:
    """Keeps stdout and stderr open: as descriptors, and as the objects that print writes to."""
    copies = {}
    for number in (1, 2):
        with contextlib.suppress(OSError):  # closed before
            copies[number] = os.dup(number)
    objects = {name: getattr(sys, name) for name in ("stdout", "stderr", "__stdout__", "__stderr__")}
    opened = {name for name, stream in objects.items() if stream is not None and not stream.closed}
    try:
        yield
    finally:
        for number, copy in copies.items():
            if not _same_file(number, copy):
                damage.append(f"closed or replaced {'stdout' if number == 1 else 'stderr'}")
                os.dup2(copy, number)
            os.close(copy)
        for name in sorted(opened, reverse=True):
            if objects[name].closed:
                number = 1 if "stdout" in name else 2
                stream = os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
                setattr(sys, name, stream)
                damage.append(f"closed sys.{name}")


def _same_file(number: int, copy: int) -> bool:
    try:
        return os.path.sameopenfile(number, copy)
    except OSError:
        return False
