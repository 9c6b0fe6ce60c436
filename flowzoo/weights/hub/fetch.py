"""Cache, then Hub at a pinned revision: one download however many processes ask, always verified."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from flowzoo.atomic import TEMPORARY, new_file
from flowzoo.errors import InputError, IntegrityError, WeightsUnavailable
from flowzoo.weights.hub import client, http
from flowzoo.weights.hub.digest import FileId, check_file, problem_with
from flowzoo.weights.hub.settings import HubSettings

__all__ = [
    "RemoteFile",
    "cached_file",
    "check_filename",
    "fetch",
    "fetch_unlisted",
    "one_at_a_time",
    "place_of",
]

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
    """The path of a file in the Hub's cache, or None. Makes no request and checks nothing."""
    path = place_of(remote, hub)
    return path if path.is_file() else None


def fetch(remote: RemoteFile, expected: FileId, hub: HubSettings, label: str) -> Path:
    """Returns a local copy of a file, downloading it unless the cache holds a sound one.

    A sound cached copy costs no request. A copy that differs is replaced by a sound one or stays as it is.

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
    with one_at_a_time(remote, hub):
        # Whoever held the lock before may have fetched it.
        cached = cached_file(remote, hub)
        if cached and _is_sound(cached, expected):
            return cached
        return _download_verified(remote, expected, hub, replace=cached is not None)


def fetch_unlisted(remote: RemoteFile, hub: HubSettings, *, max_bytes: int, force: bool = False) -> Path:
    """Returns a local copy of a pinned file whose digest nothing vouches for but the Hub itself.

    It is kept apart from other clients' files, under the address that it came from: what another server
    once gave is never taken for the Hub's.

    Args:
        remote: The file at its pinned revision.
        hub: How to reach the Hub.
        max_bytes: Refuse anything longer, before downloading it.
        force: Whether to download again what the cache holds.

    Raises:
        InputError: The file is not cached, and ``hub`` names a mirror.
        IntegrityError: The file is too long, or its body is not as long as announced.
        WeightsUnavailable: The file is not cached and cannot be fetched or stored.
    """
    trusted = dataclasses.replace(hub, endpoint=None)
    source = hashlib.sha256(trusted.address.encode()).hexdigest()[:16]
    place = _repository(remote, hub) / "flowzoo" / source / remote.revision / remote.filename
    if place.is_file() and not force:
        return place
    what = f"{remote.filename} of {remote.repo_id}@{remote.revision}"
    if hub.offline:
        raise WeightsUnavailable(
            f"{what} is not in {hub.cache_dir} and {hub.offline_reason}; load it once on a connected machine, or use "
            "path:DIR."
        )
    if hub.endpoint:
        raise InputError(
            f"{what} cannot be taken from the mirror {hub.endpoint}: no manifest holds its digest, so nothing would "
            "show that it was swapped. Load it once without the mirror, or set HF_ENDPOINT to a server that you trust."
        )
    with client.disk_errors(remote, trusted), new_file(place) as file:
        client.download(remote, trusted, file, max_bytes=max_bytes, size=None)
    return place


def _repository(remote: RemoteFile, hub: HubSettings) -> Path:
    return hub.cache_dir / f"models--{remote.repo_id.replace('/', '--')}"


def place_of(remote: RemoteFile, hub: HubSettings) -> Path:
    """A file's path in the cache, as the Hub's client has it; made of the manifest's words, never of a server's."""
    return _repository(remote, hub) / "snapshots" / remote.revision / remote.filename


def _is_sound(path: Path, expected: FileId) -> bool:
    try:
        return problem_with(path, expected) is None
    except OSError:  # not readable, or just being replaced
        return False


def _download_verified(remote: RemoteFile, expected: FileId, hub: HubSettings, *, replace: bool) -> Path:
    """Downloads into a new file beside its place, which it takes only when it is the expected one."""
    mend = f"{hub.address} served something else; use another endpoint or report it"
    _check_space(expected.size, remote, hub)
    place = place_of(remote, hub)
    # A bad copy in the cache has already used up the second chance: it is replaced, once.
    for _ in range(1 if replace else 2):
        try:
            with client.disk_errors(remote, hub), new_file(place) as file:
                client.download(remote, hub, file, max_bytes=expected.size, size=expected.size)
                problem = problem_with(Path(file.name), expected)
                if problem:
                    raise IntegrityError(
                        f"{remote.filename} of {remote.repo_id}@{remote.revision}: {problem}; {mend}."
                    )
            return place
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
def one_at_a_time(remote: RemoteFile, hub: HubSettings, *, wait: bool = True) -> Iterator[bool]:
    """Lets one process at a time change a file of the cache; a killed holder frees the lock.

    The lock saves work and guards nothing: downloads go to files of their own and are renamed when they are sound.
    So a holder that makes no progress, because it was stopped for one, is waited for no longer.

    Args:
        remote: The file.
        hub: Where the cache is.
        wait: Whether to wait for another process.

    Yields:
        Whether the lock is held.
    """
    from filelock import FileLock

    name = hashlib.sha256(f"{remote.repo_id}@{remote.revision}/{remote.filename}".encode()).hexdigest()
    lock = FileLock(hub.cache_dir / ".locks" / "flowzoo" / f"{name}.lock", mode=0o664)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        held = _acquire(lock, place_of(remote, hub).parent, http.PATIENCE if wait else 0)
    except NotImplementedError:  # no locks on this file system
        held = wait
    except OSError as error:
        raise client.explain(error, remote, hub) from error
    try:
        yield held
    finally:
        lock.release()


def _acquire(lock: Any, directory: Path, patience: float) -> bool:
    """Waits for a lock while files grow in ``directory``, and for ``patience`` seconds while they do not."""
    from filelock import Timeout

    seen, since = -1, time.monotonic()
    while True:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=min(1.0, patience))
            return True
        growing = 0
        with contextlib.suppress(OSError):
            growing = sum(path.stat().st_size for path in directory.glob(f"{TEMPORARY}*"))
        if growing != seen:
            seen, since = growing, time.monotonic()
        if time.monotonic() - since >= patience:
            return False


def _wanted(remote: RemoteFile, expected: FileId, label: str) -> tuple[str, str]:
    """Describes a file, and the way to bring it to a machine without a network."""
    which = (
        f"{remote.filename} of {remote.repo_id} at revision {remote.revision}, sha256 {expected.sha256}, "
        f"{expected.size} bytes"
    )
    pull = f"on a connected machine run `flowzoo pull {label} --to DIR`, copy DIR here and "
    return which, pull + ("load it with path:" if label.startswith("hf:") else "set FLOWZOO_WEIGHTS_DIR=DIR")
