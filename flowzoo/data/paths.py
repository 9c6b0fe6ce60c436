"""Kinds of paths: opening a pipe or device that bears a data set's name might never end. Torch-free."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_folder", "is_regular"]


def is_regular(path: Path) -> bool:
    """Whether a path leads to a regular file; False where it cannot even be asked for."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        return False


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; False where it cannot even be asked for."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
