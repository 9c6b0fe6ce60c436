"""A limit of time for what runs in this process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Late(BaseException):
    """The time is over; no ``except Exception`` on the way takes it for a fault."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """A context that :class:`Late` ends after some seconds, as soon as Python runs again.

    Windows, and threads other than the main one, have no such alarm: there nothing is cut short.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
