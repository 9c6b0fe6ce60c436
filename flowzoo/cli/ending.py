"""The end of the process: no plugin can put it off, and SIGTERM loses no more than Ctrl-C does."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn, ParamSpec

__all__ = ["ends_at_once", "sigterm_interrupts"]

P = ParamSpec("P")


def ends_at_once(main: Callable[P, NoReturn]) -> Callable[P, NoReturn]:
    """A main function that does not wait for threads that a plugin has left behind, as the interpreter would."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> NoReturn:
        try:
            main(*args, **kwargs)
        except SystemExit as end:
            surroundings = sys.modules.get("flowzoo.registry.surroundings")
            if surroundings is None or not surroundings.leftover_threads():
                raise
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)

    return run


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM, with which schedulers and ``kill`` stop a process, is Ctrl-C: what is done is shown, files are removed.

    Outside the main thread, where Python allows no handlers, and where something else has the signal, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
