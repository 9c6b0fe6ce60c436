"""Evaluating a module again exactly as before: the random numbers and batch statistics of its first evaluation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Tape:
    """Notes that modules took during one evaluation, by module."""

    def __init__(self) -> None:
        self._notes: dict[tuple[int, str], Any] = {}

    def note(self, module: nn.Module, value: Any, name: str = "") -> None:
        """Keeps a module's note of this name."""
        self._notes[id(original_of(module)), name] = value

    def read(self, module: nn.Module, name: str = "") -> Any:
        """A module's note of this name, or None."""
        return self._notes.get((id(original_of(module)), name))


class _Current(threading.local):
    tape: Tape | None = None
    replaying = False


_CURRENT = _Current()


@contextmanager
def recording(tape: Tape) -> Iterator[None]:
    """A context in which modules take notes on this tape."""
    with _current(tape, replaying=False):
        yield


@contextmanager
def replaying(tape: Tape) -> Iterator[None]:
    """A context in which modules are evaluated as the tape says; torch's generators are restored after it."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), _current(tape, replaying=True):
        yield


@contextmanager
def _current(tape: Tape, *, replaying: bool) -> Iterator[None]:
    before = _CURRENT.tape, _CURRENT.replaying
    _CURRENT.tape, _CURRENT.replaying = tape, replaying
    try:
        yield
    finally:
        _CURRENT.tape, _CURRENT.replaying = before


def noted(module: nn.Module, make: Callable[[], T], name: str = "") -> tuple[T | None, bool]:
    """A module's note: made and kept while recording, read while replaying, None otherwise; and whether it was read."""
    tape = _CURRENT.tape
    if tape is None:
        return None, False
    if _CURRENT.replaying:
        return tape.read(module, name), True
    value = make()
    tape.note(module, value, name)
    return value, False


def original_of(module: nn.Module) -> nn.Module:
    """The module that a replica (:func:`flowzoo.bijectors.replicas.replica`) was made of, or the module itself."""
    original: nn.Module = module.__dict__.get("_original", module)
    return original
