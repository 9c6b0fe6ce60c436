"""The image files below a folder, and what else lies there and is not used. Torch-free."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flowzoo.data.paths import is_folder
from flowzoo.errors import DataUnavailable

__all__ = ["SUFFIXES", "Survey", "listed", "survey", "survey_own"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})

_MAX_DEPTH = 100
_HIDDEN = "hidden"
_SUFFIX = "no known image suffix"
_AGAIN = "another name of a file or folder that counts already"
_SPECIAL = "not a regular file"
_BROKEN = "link to nowhere"


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies below a folder.

    Attributes:
        files: The images, sorted by relative path with ``/`` between its parts.
        skipped: Relative paths of what is not used, by the reason.
    """

    files: tuple[Path, ...]
    skipped: Mapping[str, tuple[str, ...]]

    @property
    def num_skipped(self) -> int:
        """Number of skipped files and folders; what lies inside a skipped folder is not looked at."""
        return sum(len(names) for names in self.skipped.values())

    def summary(self, limit: int = 3) -> str:
        """Counts and first names of what was skipped, on one line; empty if nothing was."""
        parts = [
            f"{reason}: {len(names):,} ({listed(names, limit)})" for reason, names in self.skipped.items()
        ]
        return "; ".join(parts)


def listed(names: tuple[str, ...] | list[str], limit: int, separator: str = ", ") -> str:
    """The first names, without control characters, and how many more there are."""
    shown = [name if name.isprintable() else ascii(name)[1:-1] for name in names[:limit]]
    more = [f"and {len(names) - limit:,} more"] if len(names) > limit else []
    return separator.join([*shown, *more])


def survey(folder: Path) -> Survey:
    """Looks through a folder: names that begin with a dot are skipped, each real file and folder counts once.

    Raises:
        DataUnavailable: if it is no folder, or one below it cannot be read or lies more than 100 folders deep.
    """
    walk = _Walk(folder)
    try:
        walk.run()
    except OSError as error:
        raise DataUnavailable(
            f"{folder} cannot be looked through: {error.strerror} ({_tail(error.filename)}). Mend or move what is "
            "there, or give another folder."
        ) from error
    walk.found.sort(key=lambda path: path.relative_to(folder).as_posix())
    skipped = {reason: tuple(sorted(names)) for reason, names in sorted(walk.skipped.items())}
    return Survey(tuple(walk.found), skipped)


def survey_own(folder: Path, splits: tuple[str, ...]) -> Survey:
    """Looks through a folder that is split by its subfolders, if it has any of them: other files are not used."""
    whole = survey(folder)
    named = tuple(f"{split}/" for split in splits if is_folder(folder / split))
    if not named:
        return whole
    inside: list[tuple[Path, str]] = []
    outside: list[tuple[Path, str]] = []
    for path in whole.files:
        relative = path.relative_to(folder).as_posix()
        (inside if relative.startswith(named) else outside).append((path, relative))
    skipped = dict(whole.skipped)
    if outside:
        skipped[f"outside {', '.join(named)}"] = tuple(relative for _, relative in outside)
    return Survey(tuple(path for path, _ in inside), skipped)


class _Walk:
    """Goes through a folder; links wait until all else is seen, since they lead to names that are other files' own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[Path] = []
        self.skipped: dict[str, list[str]] = {}
        self._seen: set[tuple[int, int]] = set()
        self._folders: list[tuple[Path, int]] = []
        self._links: deque[tuple[Path, int]] = deque()

    def run(self) -> None:
        start = self.folder.stat()
        if not stat.S_ISDIR(start.st_mode):
            raise DataUnavailable(f"{self.folder} is not a folder. Give a folder of images.")
        # A link to a folder that holds this one leads round, and to images that are not meant.
        above = [folder.stat() for folder in self.folder.resolve().parents]
        self._seen.update((status.st_dev, status.st_ino) for status in (start, *above))
        self._enter(self.folder, 1)
        while self._folders or self._links:
            if self._folders:
                self._enter(*self._folders.pop())
            else:
                path, depth = self._links.popleft()
                self._take(path, depth, is_link=True)

    def _enter(self, folder: Path, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise DataUnavailable(
                f"{self.folder} has folders nested more than {_MAX_DEPTH} deep. Put the images into fewer levels."
            )
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_symlink()) for entry in entries)
        for name, is_link in names:
            path = folder / name
            if name.startswith("."):
                self._skip(path, _HIDDEN)
            elif is_link:
                self._links.append((path, depth))
            else:
                self._take(path, depth, is_link=False)

    def _take(self, path: Path, depth: int, *, is_link: bool) -> None:
        try:
            status = path.stat()
        except OSError:
            if not is_link:
                raise
            self._skip(path, _BROKEN)
            return
        key = (status.st_dev, status.st_ino)
        if key in self._seen:
            self._skip(path, _AGAIN)
        elif stat.S_ISDIR(status.st_mode):
            self._seen.add(key)
            self._folders.append((path, depth + 1))
        elif not stat.S_ISREG(status.st_mode):
            self._skip(path, _SPECIAL)
        elif path.suffix.lower() not in SUFFIXES:
            self._skip(path, _SUFFIX)
        else:
            self._seen.add(key)
            self.found.append(path)

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.setdefault(reason, []).append(path.relative_to(self.folder).as_posix())


def _tail(path: object) -> str:
    text = str(path)
    return text if len(text) <= 80 else f"...{text[-77:]}"
