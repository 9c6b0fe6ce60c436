"""Finds the installed distributions that declare entry points in a group.

:mod:`importlib.metadata` answers that too, after importing the standard library's e-mail and zip packages:
half the start-up time of the command line. What is installed as a directory is therefore read here; what is not
(an archive on the path, another tool's finder) still goes through it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import NamedTuple, Protocol

from flowzoo.registry.files import read_small_text
from flowzoo.registry.isolation import ForeignFailure, foreign_code, shortened

__all__ = ["Declaration", "declarations"]

_MAX_BYTES = 4_000_000
"""Of a file of metadata; the largest in use are a hundred times smaller."""


class Declaration(NamedTuple):
    """The entry points of one distribution in a group.

    Attributes:
        distribution: The distribution's name.
        version: Its version.
        entries: Name and value of each of its entry points in the group, sorted, each pair once.
        fault: Why they cannot be read; empty if they can.
    """

    distribution: str
    version: str
    entries: tuple[tuple[str, str], ...]
    fault: str = ""


class _Distribution(Protocol):
    """The part of :class:`importlib.metadata.Distribution` that is needed."""

    def read_text(self, filename: str) -> str | None: ...


def declarations(group: str) -> Iterator[Declaration]:
    """Every installed distribution with entry points in the group, in the order of the import path.

    A distribution that is installed twice comes twice; Python imports the first one. Metadata that cannot be
    read declares nothing, as pip itself refuses such a distribution; what is no file at all, such as a pipe, is a
    fault.
    """
    for distribution in _distributions():
        try:
            with foreign_code():
                declared = distribution.read_text("entry_points.txt") or ""
                if group not in declared:
                    continue
                about = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        except ForeignFailure as failure:
            if isinstance(failure.error, _Unreadable):
                yield Declaration(*failure.error.owner, (), str(failure.error))
            continue
        owner, version = _header(about, "name"), _header(about, "version")
        try:
            yield Declaration(owner, version, tuple(sorted(set(_entries(declared, group)))))
        except ValueError as error:
            yield Declaration(owner, version, (), str(error))


class _Unreadable(Exception):
    """Metadata are no regular file; ``owner`` is the distribution and its version."""

    def __init__(self, owner: tuple[str, str], fault: str) -> None:
        super().__init__(fault)
        self.owner = owner


class _Directory:
    """The metadata of a distribution as installers leave it: ``name-1.0.dist-info``."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def read_text(self, filename: str) -> str | None:
        """The content of a file in it, or None if there is no such file."""
        try:
            return read_small_text(f"{self.path}/{filename}", _MAX_BYTES)
        except UnicodeDecodeError:
            raise
        except OSError:
            return None
        except ValueError as error:
            name, _, version = os.path.basename(self.path).rpartition(".")[0].partition("-")
            raise _Unreadable((name, version or "unknown"), f"{filename}: {error}") from error


def _distributions() -> Iterator[_Distribution]:
    """Everything that is installed, as far as the finders of the import system can tell."""
    for finder in sys.meta_path:
        if finder is PathFinder:
            for place in sys.path:
                yield from _in_place(place)
        elif hasattr(finder, "find_distributions"):
            from importlib.metadata import DistributionFinder

            yield from finder.find_distributions(DistributionFinder.Context())


def _in_place(place: str) -> Iterator[_Distribution]:
    """The distributions in one entry of the import path."""
    try:
        with os.scandir(place or ".") as children:
            found = [
                child.path for child in children if child.name.lower().endswith((".dist-info", "egg-info"))
            ]
    except NotADirectoryError:  # a zip file
        from importlib.metadata import distributions

        yield from distributions(path=[place])
    except OSError:  # a path may name what is not there
        return
    else:
        yield from map(_Directory, sorted(found))


def _header(metadata: str, key: str) -> str:
    """The value of a field in a distribution's METADATA, ``"unknown"`` if it lacks it."""
    for line in metadata.splitlines():
        if not line:
            break  # what follows is the description
        name, _, value = line.partition(":")
        if name.lower() == key:
            return shortened(value.strip(), 100)
    return "unknown"


def _entries(text: str, group: str) -> Iterator[tuple[str, str]]:
    """Name and value of the entry points of a group.

    Raises:
        ValueError: A line of the group is not of the form ``name = value``.
    """
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif section == group and line and not line.startswith("#"):
            name, equals, value = (part.strip() for part in line.partition("="))
            if not (name and equals):
                raise ValueError(f"{shortened(line, 100)!r} is not of the form 'name = value'")
            yield name, value
