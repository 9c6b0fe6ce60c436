"""A bar for people, silent for everything else."""

from __future__ import annotations

import sys
from typing import Any


class Bar:
    """A progress bar on stderr, shown only on a terminal.

    Args:
        total: Number of units.
        done: Units done before.
        unit: Name of a unit.
        shown: Whether it may be shown at all.
    """

    def __init__(self, total: int, done: int = 0, unit: str = "step", *, shown: bool = True) -> None:
        from tqdm import tqdm

        hidden = not (shown and sys.stderr.isatty())
        self._bar = tqdm(
            total=total, initial=done, unit=unit, file=sys.stderr, disable=hidden, dynamic_ncols=True
        )

    def advance(self, count: int = 1, **facts: Any) -> None:
        """Moves on; ``facts`` are shown behind the bar."""
        if facts:
            self._bar.set_postfix(facts, refresh=False)
        self._bar.update(count)

    def say(self, text: str) -> None:
        """Writes a line to stderr without tearing the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the terminal in order."""
        self._bar.close()
