"""Lengths of files and times, as readers of cards want to see them."""

from __future__ import annotations

__all__ = ["duration", "file_length"]


def file_length(size: int) -> str:
    """Bytes in units of 10^6, of small files in units of 10^3."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def duration(hours: float) -> str:
    """A time in hours, minutes or seconds."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.0f} minutes" if hours >= 1 / 30 else f"{3600 * hours:.0f} seconds"
