"""The end of the process, which no plugin can put off."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

__all__ = ["ends_at_once"]

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
