"""The requests that flowzoo makes to the Hub or a mirror, with waits that end and errors of one line."""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import quote

from flowzoo.errors import FlowzooError, WeightsUnavailable
from flowzoo.weights.hub.http import Announced, Interrupted, Refused, TooSlow, Transfer, inspect, receive

if TYPE_CHECKING:
    from flowzoo.weights.hub.fetch import RemoteFile
    from flowzoo.weights.hub.settings import HubSettings

__all__ = ["RETRY_WAITS", "announced", "disk_errors", "download", "explain", "file_url", "one_line"]

T = TypeVar("T")

RETRY_WAITS = (0.5, 1.0, 2.0)
"""Seconds to wait before asking again a Hub that is down, busy or breaks off: at most four attempts in all."""
LONGEST_WAIT = 20.0
"""Seconds to wait at most when the Hub itself says how long; a longer wait is the user's to decide."""

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def download(
    remote: RemoteFile, hub: HubSettings, file: BinaryIO, *, max_bytes: int, size: int | None
) -> None:
    """Downloads one file at its pinned revision, resuming what breaks off.

    Args:
        remote: The file.
        hub: How to reach the Hub.
        file: Where its bytes go; unbuffered.
        max_bytes: Break the download off when it grows beyond this.
        size: Its exact length if that is known.

    Raises:
        WeightsUnavailable: The file could not be fetched or stored.
        IntegrityError: The server announced or sent something else.
    """
    transfer = _transfer(remote, hub, max_bytes, size)
    from tqdm import tqdm

    # Shown on a terminal only.
    with tqdm(
        total=size, unit="B", unit_scale=True, desc=remote.filename[-40:], disable=None, leave=False
    ) as bar:
        _asked(lambda: receive(transfer, file, bar.update), remote, hub)


def announced(remote: RemoteFile, hub: HubSettings) -> Announced:
    """Asks for revision, digest and size of a file at its pinned revision, and downloads nothing.

    Raises:
        WeightsUnavailable: There was no usable answer in the time allowed.
        IntegrityError: The server answers for another revision.
    """
    # A file that is only asked about may have any size: whoever asks compares it.
    transfer = _transfer(remote, hub, max_bytes=2**63, size=None)
    return _asked(lambda: inspect(transfer), remote, hub)


def _transfer(remote: RemoteFile, hub: HubSettings, max_bytes: int, size: int | None) -> Transfer:
    return Transfer(
        url=file_url(hub, remote.repo_id, remote.revision, remote.filename),
        what=f"{remote.filename} of {remote.repo_id}@{remote.revision}, from {hub.address}",
        max_bytes=max_bytes,
        size=size,
        revision=remote.revision,
        token=_token(hub),
    )


def _asked(request: Callable[[], T], remote: RemoteFile, hub: HubSettings) -> T:
    """Makes a request, and makes it again where that may help."""
    for wait in RETRY_WAITS:
        try:
            return request()
        except (Refused, Interrupted, TooSlow, OSError) as error:
            pause = _pause(error, wait)
            if pause is None:
                raise explain(error, remote, hub) from error
            time.sleep(pause)
    try:
        return request()
    except (Refused, Interrupted, TooSlow, OSError) as error:
        raise explain(error, remote, hub) from error


def file_url(hub: HubSettings, repo_id: str, revision: str, filename: str) -> str:
    """The address of a file at a commit."""
    return f"{hub.address}/{repo_id}/resolve/{revision}/{quote(filename)}"


def _token(hub: HubSettings) -> str | None:
    """The token that the user logged in with, for the Hub itself; None for a mirror, which is told no secret."""
    from huggingface_hub import constants, get_token

    if hub.endpoint or constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    return get_token()


def explain(error: Exception, remote: RemoteFile, hub: HubSettings) -> FlowzooError:
    """Turns whatever went wrong on the way to a file into one helpful line."""
    what = f"{remote.filename} of {remote.repo_id}@{remote.revision}"
    if isinstance(error, FlowzooError):
        return error
    refused = _refusal(error)
    if refused is not None:
        return WeightsUnavailable(_explain_status(refused, remote, hub))
    if isinstance(error, OSError):  # the network's are Interrupted by now
        return WeightsUnavailable(_explain_disk(error, what, hub))
    if isinstance(error, TooSlow):
        return WeightsUnavailable(
            f"Cannot fetch {what}: {hub.address} is too slow ({error}). Try again later, or name a mirror with "
            "--endpoint or FLOWZOO_HUB_ENDPOINT."
        )
    detail = (
        one_line(error) if isinstance(error, Interrupted) else f"{type(error).__name__}: {one_line(error)}"
    )
    return WeightsUnavailable(
        f"Cannot fetch {what}: no usable answer from {hub.address} ({detail}). "
        "Check the network, or name a mirror with --endpoint or FLOWZOO_HUB_ENDPOINT."
    )


def _refusal(error: Exception) -> Refused | None:
    """The refusal in an error, be it flowzoo's own request or one of the Hub's client, which `publish` uses."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        headers = error.response.headers
        return Refused(
            error.response.status_code, headers.get("X-Error-Code", ""), headers.get("Retry-After", "")
        )
    return error if isinstance(error, Refused) else None


def _explain_status(error: Refused, remote: RemoteFile, hub: HubSettings) -> str:
    status, code = error.status, error.code
    repo, address = remote.repo_id, hub.address
    login = (
        "use a mirror that needs no token (flowzoo sends none to a mirror), or set HF_ENDPOINT to trust this one"
        if hub.endpoint
        else "log in with `hf auth login` or set HF_TOKEN"
    )
    if code == "GatedRepo":
        return (
            f"{repo} is gated on {address} (HTTP {status}): accept its terms at {address}/{repo}, "
            f"then {login}."
        )
    if code == "RevisionNotFound":
        return (
            f"{repo} has no revision {remote.revision} on {address} (HTTP {status}): upgrade flowzoo, "
            "or use an endpoint that has it."
        )
    if code == "EntryNotFound":
        return (
            f"{repo}@{remote.revision} has no file {remote.filename} on {address} (HTTP {status}): "
            "upgrade flowzoo, or use an endpoint that has it."
        )
    if status in (401, 403) and code != "RepoNotFound":
        return f"{address} refuses access to {repo} (HTTP {status}): {login}."
    if code == "RepoNotFound" or status == 404:
        return (
            f"{address} has no repository {repo} (HTTP {status}), or it is private: check the name, "
            f"then {login}."
        )
    later = "wait some minutes" if error.retry_after is None else f"wait {error.retry_after} seconds"
    if status == 429:
        return f"{address} says too many requests (HTTP 429) for {repo}: {later}, then try again."
    if status in _BUSY:
        return (
            f"{address} is out of order (HTTP {status}) for {repo}: {later}, then try again, or name a mirror with "
            "--endpoint or FLOWZOO_HUB_ENDPOINT."
        )
    return f"{address} answers HTTP {status} for {remote.filename} of {repo}: use another endpoint."


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


@contextlib.contextmanager
def disk_errors(remote: RemoteFile, hub: HubSettings) -> Iterator[None]:
    """Turns what the disk of the cache raises into one helpful line."""
    try:
        yield
    except OSError as error:
        raise explain(error, remote, hub) from error


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, without secrets, and not longer than a screen."""
    from huggingface_hub import get_token

    text = " ".join(str(error).split())
    # A server's error may echo what it was sent.
    if token := get_token():
        text = text.replace(token, "(your token)")
    text = _TOKEN.sub("(a token)", text)
    return text if len(text) <= 400 else f"{text[:397]}..."


def _pause(error: Exception, wait: float) -> float | None:
    """Seconds to wait before asking again, or None if asking again is no use."""
    if isinstance(error, Interrupted):
        return wait
    if not isinstance(error, Refused) or error.status not in _BUSY:
        return None
    asked = wait if error.retry_after is None else error.retry_after
    return asked if asked <= LONGEST_WAIT else None
