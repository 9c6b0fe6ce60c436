"""The weights on this machine: what lies where, copying it to other machines, removing it. Torch-free."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flowzoo.atomic import TEMPORARY, write_chunks
from flowzoo.errors import CheckpointError, InputError, WeightsUnavailable
from flowzoo.manifest.schema import Entry
from flowzoo.weights.external import CARD_FILENAME, Unlisted
from flowzoo.weights.hub import (
    FileId,
    HubSettings,
    RemoteFile,
    check_file,
    one_at_a_time,
    place_of,
    problem_with,
)
from flowzoo.weights.resolve import local_copies, remote_file

__all__ = ["Copy", "copies_of", "copy_into", "remove_from_cache"]


@dataclass(frozen=True, slots=True)
class Copy:
    """A local file that stands for a model's weights.

    Attributes:
        entry: The model.
        source: ``"overlay"``, ``"plugin"`` or ``"hub cache"``.
        path: The file.
        size: Its length in bytes, None if it cannot be told.
    """

    entry: Entry
    source: str
    path: Path
    size: int | None

    def problem(self) -> str | None:
        """The difference between the file and what the manifest promises, or None."""
        if self.entry.weights is None:
            return None
        try:
            return problem_with(self.path, FileId(self.entry.weights.sha256, self.entry.weights.size))
        except OSError as error:
            return f"cannot be read ({error.strerror})"


def copies_of(entry: Entry, hub: HubSettings) -> Iterator[Copy]:
    """Yields every local copy of a model's weights in the order in which loading looks for them."""
    for source, path in local_copies(entry, hub):
        size = None
        with contextlib.suppress(OSError):
            size = path.stat().st_size
        yield Copy(entry, source, path, size)


def copy_into(directory: Path, card: Entry | Unlisted, path: Path, card_path: Path | None = None) -> Path:
    """Copies verified weights to where another machine's loading finds them.

    A listed model becomes ``DIR/<sha256>.safetensors``, to be named by FLOWZOO_WEIGHTS_DIR there. An
    unlisted one becomes a directory of its own with its ``flowzoo.json``, to be loaded with ``path:``; it is
    named after the directory or the commit that it comes from.

    Args:
        directory: Where to, made if it is missing.
        card: The model.
        path: Its weights.
        card_path: The ``flowzoo.json`` of an unlisted one.

    Returns:
        The file, or the directory.

    Raises:
        InputError: Another model is in the directory's place.
        WeightsUnavailable: It cannot be written.
        IntegrityError: What was written is not what was read.
    """
    assert card.weights is not None
    expected = FileId(card.weights.sha256, card.weights.size)
    mend = "the disk may be failing; try another directory"
    try:
        if isinstance(card, Entry):
            return check_file(_copy(path, directory / f"{expected.sha256}.safetensors"), expected, mend)
        place = directory / path.parent.resolve().name
        assert card_path is not None
        _claim(place, card_path.read_bytes())
        check_file(_copy(path, place / card.weights.filename), expected, mend)
        return place
    except (OSError, CheckpointError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise WeightsUnavailable(
            f"{directory} cannot be written ({why}); name another directory with --to."
        ) from error


def _claim(place: Path, card: bytes) -> None:
    """Makes the directory of a model, unless something else is there; an unfinished copy of the model is not.

    The card comes first, so that a copy that is broken off is known by it.
    """
    there = place / CARD_FILENAME
    taken = place.exists() and any(not path.name.startswith(TEMPORARY) for path in place.iterdir())
    if taken and not (there.is_file() and there.read_bytes() == card):
        raise InputError(
            f"{place} holds something else, which is not overwritten; name another directory with --to."
        )
    write_chunks(there, [card])


def remove_from_cache(entry: Entry, hub: HubSettings) -> int | None:
    """Removes a model's file, and what broken-off downloads left of it, from the Hub's cache.

    Other files of the repository and other clients' downloads stay.

    Returns:
        Bytes that were freed; None if another process is downloading the file, which is left alone then.

    Raises:
        WeightsUnavailable: The cache cannot be changed.
    """
    remote = remote_file(entry.weights) if entry.weights else None
    if remote is None or not hub.cache_dir.is_dir():
        return 0
    with one_at_a_time(remote, hub, wait=False) as held:
        if not held:
            return None
        try:
            return _remove_copy(place_of(remote, hub), remote)
        except OSError as error:
            raise WeightsUnavailable(
                f"{remote.filename} cannot be removed from {hub.cache_dir} ({error.strerror}); check its permissions."
            ) from error


def _remove_copy(place: Path, remote: RemoteFile) -> int:
    # The Hub's own client keeps the content elsewhere, and a link here.
    blob = place.resolve() if place.is_symlink() else None
    snapshots = place.parents[len(Path(remote.filename).parts)]
    freed = sum(_remove(path) for path in (*place.parent.glob(f"{TEMPORARY}*"), place))
    if blob is not None and blob.parent == snapshots.parent.resolve() / "blobs":
        shared = any(link.is_symlink() and link.resolve() == blob for link in snapshots.rglob("*"))
        freed += 0 if shared else _remove(blob)
    return freed


def _remove(path: Path) -> int:
    """Removes a file if it is there; returns its size."""
    try:
        size = path.lstat().st_size if not path.is_symlink() else 0
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _copy(source: Path, target: Path) -> Path:
    """Copies a file so that ``target`` is whole or absent."""
    with source.open("rb") as file:
        write_chunks(target, iter(lambda: file.read(1 << 20), b""))
    return target
