"""The weights on this machine: what lies where, copying it to other machines, removing it. Torch-free."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flowzoo.errors import WeightsUnavailable
from flowzoo.manifest.schema import Entry
from flowzoo.weights.external import CARD_FILENAME, Unlisted
from flowzoo.weights.hub import FileId, HubSettings, check_file, problem_with
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
        """How the file differs from what the manifest promises, or None."""
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


def copy_into(directory: Path, card: Entry | Unlisted, path: Path) -> Path:
    """Copies verified weights to where another machine's loading finds them.

    A listed model becomes ``DIR/<sha256>.safetensors``, to be named by FLOWZOO_WEIGHTS_DIR there. An
    unlisted one becomes a directory of its own with its ``flowzoo.json``, to be loaded with ``path:``.

    Returns:
        The file, or the directory.

    Raises:
        WeightsUnavailable: It cannot be written.
        IntegrityError: What was written is not what was read.
    """
    assert card.weights is not None
    expected = FileId(card.weights.sha256, card.weights.size)
    mend = "the disk may be failing; try another directory"
    try:
        if isinstance(card, Entry):
            return check_file(_copy(path, directory / f"{expected.sha256}.safetensors"), expected, mend)
        place = directory / path.parent.name
        check_file(_copy(path, place / card.weights.filename), expected, mend)
        _copy(path.parent / CARD_FILENAME, place / CARD_FILENAME)
        return place
    except OSError as error:
        raise WeightsUnavailable(
            f"{directory} cannot be written ({error.strerror}); name another directory with --to."
        ) from error


def remove_from_cache(entry: Entry, hub: HubSettings) -> int:
    """Removes a model's revision, and what broken-off downloads left, from the Hub's cache.

    Returns:
        Bytes that were freed.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    remote = remote_file(entry.weights) if entry.weights else None
    if remote is None:
        return 0
    try:
        cache = scan_cache_dir(hub.cache_dir)
    except CacheNotFound:
        return 0
    freed = 0
    for repo in cache.repos:
        if repo.repo_type == "model" and repo.repo_id == remote.repo_id:
            for path in (repo.repo_path / "blobs").glob("*.incomplete"):
                freed += path.stat().st_size
                path.unlink()
            if any(revision.commit_hash == remote.revision for revision in repo.revisions):
                strategy = cache.delete_revisions(remote.revision)
                freed += strategy.expected_freed_size
                strategy.execute()
    return freed


def _copy(source: Path, target: Path) -> Path:
    """Copies a file so that ``target`` is whole or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".partial-{os.getpid()}-{target.name}")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
