"""Cache, then Hub at a pinned revision: one download however many processes ask, always verified."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flowzoo.errors import InputError, IntegrityError, WeightsUnavailable
from flowzoo.weights.hub import client
from flowzoo.weights.hub.digest import FileId, check_file, problem_with
from flowzoo.weights.hub.settings import HubSettings

__all__ = ["RemoteFile", "cached_file", "check_filename", "fetch", "fetch_unlisted"]

_REVISION = re.compile(r"[0-9a-f]{40}")
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the Hub that can never change.

    Attributes:
        repo_id: ``"organization/name"``.
        revision: A commit, 40 lower-case hex digits; never a branch or a tag.
        filename: Path inside the repository.
    """

    repo_id: str
    revision: str
    filename: str

    def __post_init__(self) -> None:
        if not _REPO_ID.fullmatch(self.repo_id) or ".." in self.repo_id:
            raise InputError(f"{self.repo_id!r} is not a Hub repository; write 'organization/name'.")
        if not _REVISION.fullmatch(self.revision):
            raise InputError(
                f"{self.revision!r} does not pin {self.repo_id}: branches and tags move; "
                "give the commit, 40 hex digits."
            )
        check_filename(self.filename)


def check_filename(filename: str) -> str:
    """Returns a file name that stays inside the directory it is joined to.

    Raises:
        InputError: It is absolute, climbs out, or means different things on different systems.
    """
    parts = PurePosixPath(filename).parts
    safe = (
        filename
        and not filename.startswith("/")
        and ".." not in parts
        and str(PurePosixPath(*parts)) == filename
    )
    if not safe or any(char in filename for char in "\\:\0\n"):
        raise InputError(f"The file name {filename!r} leaves its directory; give a plain relative path.")
    return filename


def cached_file(remote: RemoteFile, hub: HubSettings) -> Path | None:
    """Where the Hub's cache holds a file, or None. Makes no request and checks nothing."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        remote.repo_id, remote.filename, cache_dir=hub.cache_dir, revision=remote.revision
    )
    return Path(found) if isinstance(found, str) else None


def fetch(remote: RemoteFile, expected: FileId, hub: HubSettings, label: str) -> Path:
    """Returns a local copy of a file, downloading it unless the cache holds a sound one.

    A sound cached copy costs no request. A copy that differs is downloaded again, once.

    Args:
        remote: The file at its pinned revision.
        expected: Its size and digest.
        hub: How to reach the Hub.
        label: The model's name for ``flowzoo pull``, used in error messages.

    Raises:
        IntegrityError: What the Hub serves is not the expected file.
        WeightsUnavailable: The file is not cached and cannot be fetched or stored.
    """
    cached = cached_file(remote, hub)
    if cached and _is_sound(cached, expected):
        return cached
    if hub.offline:
        which, then = _wanted(remote, expected, label)
        if cached:
            return check_file(cached, expected, f"{hub.offline_reason}, and it should be {which}: {then}")
        raise WeightsUnavailable(
            f"{label} is not on this machine and {hub.offline_reason}. Wanted: {which}, looked for in "
            f"{hub.cache_dir}: {then}."
        )
    with _one_at_a_time(remote, expected.sha256, hub):
        # Whoever held the lock before may have fetched it.
        cached = cached_file(remote, hub)
        if cached and _is_sound(cached, expected):
            return cached
        return _download_verified(remote, expected, hub, replace=cached is not None)


def fetch_unlisted(remote: RemoteFile, hub: HubSettings, *, max_bytes: int, force: bool = False) -> Path:
    """Returns a local copy of a pinned file whose digest nothing vouches for.

    Args:
        remote: The file at its pinned revision.
        hub: How to reach the Hub.
        max_bytes: Refuse anything longer, before downloading it.
        force: Whether to download again what the cache holds.

    Raises:
        IntegrityError: The file is too long, or its body is not as long as announced.
        WeightsUnavailable: The file is not cached and cannot be fetched or stored.
    """
    cached = cached_file(remote, hub)
    if cached and not force:
        return cached
    if hub.offline:
        raise WeightsUnavailable(
            f"{remote.filename} of {remote.repo_id}@{remote.revision} is not in {hub.cache_dir} and "
            f"{hub.offline_reason}; load it once on a connected machine, or use path:DIR."
        )
    size = client.remote_size(remote, hub)
    if size is None or size > max_bytes:
        raise IntegrityError(
            f"{remote.filename} of {remote.repo_id}@{remote.revision}: expected at most {max_bytes} bytes, "
            f"{hub.address} announces {'no size' if size is None else size}; not downloaded."
        )
    return client.download(remote, hub, force=force, max_bytes=max_bytes)


def _is_sound(path: Path, expected: FileId) -> bool:
    try:
        return problem_with(path, expected) is None
    except OSError:  # not readable, or just being replaced
        return False


def _download_verified(remote: RemoteFile, expected: FileId, hub: HubSettings, *, replace: bool) -> Path:
    mend = f"{hub.address} served something else; use another endpoint or report it"
    _check_space(expected.size, remote, hub)
    # A bad copy in the cache has already used up the second chance: it is replaced, once.
    for force in [True] if replace else [False, True]:
        try:
            size = client.remote_size(remote, hub)
            if size is not None and size != expected.size:
                raise IntegrityError(
                    f"{remote.filename} of {remote.repo_id}@{remote.revision}: expected {expected.size} "
                    f"bytes, found {size} bytes announced; {mend}."
                )
            path = client.download(remote, hub, force=force, max_bytes=expected.size)
            return check_file(path, expected, mend)
        except IntegrityError as error:
            failure = error
    raise failure


def _check_space(needed: int, remote: RemoteFile, hub: HubSettings) -> None:
    there = next(path for path in (hub.cache_dir, *hub.cache_dir.resolve().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise WeightsUnavailable(
            f"Cannot store {remote.filename} of {remote.repo_id}: it needs {needed} bytes and the disk of "
            f"{hub.cache_dir} has {free} left; free some space or set HF_HUB_CACHE."
        )


@contextlib.contextmanager
def _one_at_a_time(remote: RemoteFile, sha256: str, hub: HubSettings) -> Iterator[None]:
    """Lets one process download a file while the others wait for it; a killed holder frees the lock."""
    from filelock import FileLock

    lock = FileLock(hub.cache_dir / ".locks" / "flowzoo" / f"{sha256}.lock", mode=0o664)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except NotImplementedError:
        # No locks on this file system: every process downloads into a file of its own, still verified.
        yield
        return
    except OSError as error:
        raise client.explain(error, remote, hub) from error
    try:
        yield
    finally:
        lock.release()


def _wanted(remote: RemoteFile, expected: FileId, label: str) -> tuple[str, str]:
    """Which file it is, and how to bring it to a machine without a network."""
    which = (
        f"{remote.filename} of {remote.repo_id} at revision {remote.revision}, sha256 {expected.sha256}, "
        f"{expected.size} bytes"
    )
    pull = f"on a connected machine run `flowzoo pull {label} --to DIR`, copy DIR here and "
    return which, pull + ("load it with path:" if label.startswith("hf:") else "set FLOWZOO_WEIGHTS_DIR=DIR")
