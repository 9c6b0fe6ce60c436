"""The few calls that flowzoo makes to the Hub's client, with waits that end and errors of one line."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flowzoo.errors import FlowzooError, IntegrityError, WeightsUnavailable

if TYPE_CHECKING:
    from flowzoo.weights.hub.fetch import RemoteFile
    from flowzoo.weights.hub.settings import HubSettings

__all__ = ["RETRY_WAITS", "download", "explain", "one_line", "remote_size"]

T = TypeVar("T")

RETRY_WAITS = (0.5, 1.0, 2.0)
"""Seconds to wait before asking again a Hub that is down or busy."""
LONGEST_WAIT = 20.0
"""Seconds to wait at most when the Hub itself says how long."""

_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def remote_size(remote: RemoteFile, hub: HubSettings) -> int | None:
    """Asks the Hub for a file's size in bytes, None if it does not say.

    This request comes first on purpose: unlike the client's own, its retries end after seconds, and a
    file of the wrong size is never downloaded.

    Raises:
        WeightsUnavailable: The Hub does not give the file.
        IntegrityError: The Hub answers for another revision.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    def ask() -> Any:
        url = hf_hub_url(remote.repo_id, remote.filename, revision=remote.revision, endpoint=hub.endpoint)
        return get_hf_file_metadata(
            url, token=hub.download_token, endpoint=hub.endpoint, library_name="flowzoo"
        )

    try:
        metadata = _patiently(ask, RETRY_WAITS)
    except FlowzooError:
        raise
    except Exception as error:  # the client raises its HTTP library's errors, and that library changes
        raise explain(error, remote, hub) from error
    if metadata.commit_hash not in (None, remote.revision):
        raise IntegrityError(
            f"{hub.address} answers for revision {metadata.commit_hash} of {remote.repo_id} when asked for "
            f"{remote.revision}; use another endpoint."
        )
    return metadata.size if isinstance(metadata.size, int) else None


def download(remote: RemoteFile, hub: HubSettings, *, force: bool, max_bytes: int) -> Path:
    """Downloads one file at its pinned revision into the client's cache.

    Args:
        remote: The file.
        hub: How to reach the Hub.
        force: Whether to download again what the cache holds.
        max_bytes: Break the download off when it grows beyond this.

    Raises:
        WeightsUnavailable: The file could not be fetched or stored.
        IntegrityError: The body had another length than announced.
    """
    from huggingface_hub import hf_hub_download

    what = f"{remote.filename} of {remote.repo_id}@{remote.revision}, from {hub.address}"

    def get() -> str:
        return hf_hub_download(
            remote.repo_id,
            remote.filename,
            revision=remote.revision,
            endpoint=hub.endpoint,
            cache_dir=hub.cache_dir,
            token=hub.download_token,
            force_download=force,
            library_name="flowzoo",
            tqdm_class=_bounded_progress(max_bytes, what),
        )

    try:
        # The client resumes after most breaks, but not after a connection reset or a server's error.
        path = _patiently(get, RETRY_WAITS[:1])
    except Exception as error:  # the client raises its HTTP library's errors, and that library changes
        raise explain(error, remote, hub) from error
    return Path(path)


def explain(error: Exception, remote: RemoteFile, hub: HubSettings) -> FlowzooError:
    """Turns whatever the Hub's client raised into one helpful line."""
    from huggingface_hub import errors

    if isinstance(error, FlowzooError):
        return error
    # The client wraps the reason when a first attempt and its cache both fail.
    if isinstance(error, errors.LocalEntryNotFoundError | ValueError) and isinstance(
        error.__cause__, Exception
    ):
        return explain(error.__cause__, remote, hub)
    what = f"{remote.filename} of {remote.repo_id}@{remote.revision}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return WeightsUnavailable(
            f"Cannot fetch {what}: the Hub's client was imported with HF_HUB_OFFLINE set; "
            "start again without it."
        )
    if isinstance(error, errors.HfHubHTTPError):
        return WeightsUnavailable(_explain_status(error, remote, hub))
    if isinstance(error, OSError) and (error.errno in _FULL or error.errno in _FORBIDDEN):
        return WeightsUnavailable(_explain_disk(error, what, hub))
    if type(error) is OSError and error.errno is None:
        return IntegrityError(f"{what}, from {hub.address}: {one_line(error)}")
    return WeightsUnavailable(
        f"Cannot fetch {what}: no usable answer from {hub.address} "
        f"({type(error).__name__}: {one_line(error)}). "
        "Check the network, or name a mirror with --endpoint or FLOWZOO_HUB_ENDPOINT."
    )


def _explain_status(error: Any, remote: RemoteFile, hub: HubSettings) -> str:
    from huggingface_hub import errors

    status = getattr(error.response, "status_code", None)
    repo, address = remote.repo_id, hub.address
    login = (
        "use a mirror that needs no token (flowzoo sends none to a mirror), or set HF_ENDPOINT to trust this one"
        if hub.endpoint
        else "log in with `hf auth login` or set HF_TOKEN"
    )
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo} is gated on {address} (HTTP {status}): accept its terms at {address}/{repo}, "
            f"then {login}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{repo} has no revision {remote.revision} on {address} (HTTP {status}): upgrade flowzoo, "
            "or use an endpoint that has it."
        )
    if isinstance(error, errors.EntryNotFoundError):
        return (
            f"{repo}@{remote.revision} has no file {remote.filename} on {address} (HTTP {status}): "
            "upgrade flowzoo, or use an endpoint that has it."
        )
    if status in (401, 403):
        return f"{address} refuses access to {repo} (HTTP {status}): {login}."
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return (
            f"{address} has no repository {repo} (HTTP {status}), or it is private: check the name, "
            f"then {login}."
        )
    if status == 429:
        return f"{address} says too many requests (HTTP 429) for {repo}: wait some minutes, then try again."
    if status in _BUSY:
        return (
            f"{address} is out of order (HTTP {status}) for {repo}: try again later, or name a mirror with "
            "--endpoint or FLOWZOO_HUB_ENDPOINT."
        )
    return f"{address} answers HTTP {status} for {remote.filename} of {repo}: {one_line(error)}"


def _explain_disk(error: OSError, what: str, hub: HubSettings) -> str:
    where = error.filename or hub.cache_dir
    if error.errno in _FULL:
        return (
            f"Cannot store {what}: the disk of {hub.cache_dir} is full; free some space or set HF_HUB_CACHE."
        )
    return (
        f"Cannot store {what}: {where} cannot be written ({error.strerror}); set HF_HUB_CACHE to a directory "
        "of yours."
    )


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


def _patiently(ask: Callable[[], T], waits: Sequence[float]) -> T:
    for wait in waits:
        try:
            return ask()
        except Exception as error:  # as above: which errors mean "no network" depends on the HTTP library
            if (pause := _pause(error, wait)) is None:
                raise
            time.sleep(pause)
    return ask()


def _pause(error: Exception, wait: float) -> float | None:
    """Seconds to wait before asking again, or None if asking again is no use."""
    from huggingface_hub import errors

    if not isinstance(error, errors.HfHubHTTPError):
        # A disk's error is an OSError, a misuse a ValueError; the rest is the HTTP library's: the network.
        return None if isinstance(error, OSError | ValueError | FlowzooError) else wait
    if error.response.status_code not in _BUSY:
        return None
    asked = error.response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT) if asked.isdigit() else wait


def _bounded_progress(max_bytes: int, what: str) -> Any:
    """The client's progress bar, which also ends a body that does not end.

    The client compares lengths only afterwards; by then a body without an announced length has filled the disk.
    """
    bar = import_module("huggingface_hub.utils").tqdm

    class Bounded(bar):  # type: ignore[misc, valid-type]
        received = 0

        def update(self, n: float | None = 1) -> Any:
            self.received += int(n or 0)
            if self.received > max_bytes:
                raise IntegrityError(f"{what}: expected at most {max_bytes} bytes, found more.")
            return super().update(n)

    return Bounded
