"""Running a plugin's code so that nothing it does can take the caller down."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["ForeignFailure", "describe", "foreign_code", "import_reference"]


class ForeignFailure(Exception):
    """Code of a plugin failed; ``error`` is what it raised, the message is one line about it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(describe(error))
        self.error = error


@contextlib.contextmanager
def foreign_code() -> Iterator[None]:
    """Runs a plugin's code: whatever it raises becomes one exception, what it prints goes to stderr.

    SystemExit and any other BaseException are a plugin's failure like the rest. Ctrl-C is the user's.

    Raises:
        ForeignFailure: The code raised anything but KeyboardInterrupt.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ForeignFailure(error) from error


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
        return f"SystemExit: importing it ends the interpreter (code {error.code!r})"
    text = ""
    with contextlib.suppress(Exception):
        text = " ".join(str(error).split())
    return f"{kind}: {text}" if text else kind
