"""Runs a plugin's code so that nothing it does can take the caller down."""

from __future__ import annotations

import contextlib
import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from flowzoo.registry.surroundings import kept_surroundings, mute, output_to_stderr

__all__ = [
    "BUILD_SECONDS",
    "SECONDS",
    "ForeignFailure",
    "bounded",
    "describe",
    "ends_in",
    "foreign_code",
    "gave_up",
    "import_reference",
    "shortened",
]

T = TypeVar("T")

SECONDS = 20.0
"""The time that importing and judging a plugin may take: a thousand times what it needs."""

BUILD_SECONDS = 300.0
"""The time that building a model may take; the largest preset needs a fiftieth of it."""


class ForeignFailure(Exception):
    """Code of a plugin failed; ``error`` is what it raised, the message is one line about it."""

    def __init__(self, error: BaseException, message: str = "") -> None:
        super().__init__(message or describe(error))
        self.error = error


class _Worker(threading.Thread):
    """The thread that code of a plugin runs in."""


@contextlib.contextmanager
def foreign_code() -> Iterator[None]:
    """Runs a plugin's code: whatever it raises becomes one exception, what it prints goes to stderr.

    SystemExit and any other BaseException are a plugin's failure like the rest. In the main thread a
    KeyboardInterrupt is taken for the user's Ctrl-C, which arrives nowhere else.

    Raises:
        ForeignFailure: The code raised anything else.
    """
    # What a worker prints is sent there for as long as it is waited for, and no longer: it may never end.
    waited_for = isinstance(threading.current_thread(), _Worker)
    try:
        with contextlib.nullcontext() if waited_for else output_to_stderr():
            yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        raise ForeignFailure(error) from error


def bounded(work: Callable[[], T]) -> T:
    """Runs a plugin's code as :func:`foreign_code` does, for a limited time, and puts right what it leaves behind.

    It runs in a thread of its own: one that hangs is given up, and Ctrl-C stays with the caller. Threads that it
    starts without saying otherwise end with the program.

    Raises:
        ForeignFailure: The code raised, took too long, or damaged what it shares with everybody.
    """
    outcome: list[T | ForeignFailure] = []

    def run() -> None:
        try:
            with foreign_code():
                outcome.append(work())
        except ForeignFailure as failure:
            outcome.append(failure)

    worker = _Worker(target=run, daemon=True)
    with kept_surroundings() as damage:
        worker.start()
        worker.join(SECONDS)
        if not outcome:
            mute(worker)
    if not outcome:
        cause = (
            f"it does not end, and was given up after {SECONDS:g} seconds; naming it in FLOWZOO_DISABLE_PLUGINS "
            "spares every command the wait"
        )
        raise ForeignFailure(TimeoutError(cause), cause)
    if isinstance(outcome[0], ForeignFailure):
        raise outcome[0]
    if damage:
        cause = shortened(f"importing it {' and '.join(damage)}", 500)
        raise ForeignFailure(RuntimeError(cause), cause)
    return outcome[0]


@contextlib.contextmanager
def ends_in(seconds: float) -> Iterator[None]:
    """Ends code that does not end by itself, as Ctrl-C would, in the thread that it has to run in.

    Only the main thread can be interrupted, and only while Ctrl-C means what it usually does; elsewhere the code may
    take as long as it likes.

    Raises:
        ForeignFailure: The time was over.
    """
    main, kill = threading.main_thread(), getattr(signal, "pthread_kill", None)  # Windows has none
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not main or not usual or kill is None or main.ident is None:
        yield
        return
    number, lock, over, done = main.ident, threading.Lock(), threading.Event(), threading.Event()

    def end() -> None:
        with lock:
            if not done.is_set():
                over.set()
                kill(number, signal.SIGINT)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
        with lock:  # An interrupt that is on its way arrives in here.
            done.set()
    except KeyboardInterrupt as error:
        if not over.is_set():
            raise
        cause = f"it does not end, and was given up after {seconds:g} seconds"
        raise ForeignFailure(TimeoutError(cause), cause) from error
    finally:
        done.set()
        timer.cancel()


def gave_up(error: BaseException) -> bool:
    """Whether an error says that code did not end, so that running it again is no use."""
    return isinstance(error.__cause__, TimeoutError)


def import_reference(reference: str) -> Any:
    """The object that ``"module:attribute"`` names.

    Raises:
        ForeignFailure: The module cannot be imported, or has no such attribute.
    """
    module, _, attribute = reference.partition(":")
    with foreign_code():
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    return found


def describe(error: BaseException) -> str:
    """One line on an exception, even on one whose own ``__str__`` fails."""
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        return f"SystemExit: importing it ends the interpreter (code {shortened(repr(error.code), 40)})"
    text = ""
    with contextlib.suppress(Exception):
        text = shortened(" ".join(str(error).split()), 500)
    return f"{kind}: {text}" if text else kind


def shortened(text: str, length: int) -> str:
    """A text as it can be shown in a line: cut to a length, and nothing in it that a terminal would obey."""
    cut = text if len(text) <= length else f"{text[: length - 3]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in cut)
