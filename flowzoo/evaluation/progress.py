"""Progress for people: a bar on a terminal, a line every so often elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

LINE_SECONDS = 30.0
"""Seconds between two lines of progress where there is no terminal."""


def write_line(text: str) -> None:
    """Writes a line to stderr at once; a stderr that is closed, full or gone loses it and nothing else."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class Bar:
    """Progress on stderr: a bar on a terminal, else a line every :data:`LINE_SECONDS`.

    Args:
        total: Number of units.
        done: Units done before.
        unit: Name of a unit.
        shown: Whether anything may be shown at all.
        delay: Seconds before the bar appears; short work shows none.
    """

    def __init__(
        self, total: int, done: int = 0, unit: str = "step", *, shown: bool = True, delay: float = 0.0
    ) -> None:
        from tqdm import tqdm

        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._lines = shown and not terminal
        self._total, self._done, self._unit = total, done, unit
        self._told = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            file=sys.stderr,
            disable=not (shown and terminal),
            dynamic_ncols=True,
            delay=delay,
        )

    def advance(self, count: int = 1, **facts: Any) -> None:
        """Moves on; ``facts`` are shown behind the bar or in the line."""
        self._done += count
        if self._lines:
            self._tell(facts)
        if facts:
            self._bar.set_postfix(facts, refresh=False)
        self._bar.update(count)

    def _tell(self, facts: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._told >= LINE_SECONDS:
            self._told = now
            shown = "".join(f", {name} {value}" for name, value in facts.items())
            write_line(f"{self._unit} {self._done}/{self._total}{shown}")

    def close(self) -> None:
        """Leaves the terminal in order."""
        self._bar.close()
