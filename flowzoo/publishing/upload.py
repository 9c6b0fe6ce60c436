"""The commits to the Hub, and the entry with what the Hub says about it."""

from __future__ import annotations

import dataclasses
import re

from flowzoo.atomic import write_text
from flowzoo.errors import FlowzooError, InputError, IntegrityError, WeightsUnavailable
from flowzoo.manifest.schema import Entry
from flowzoo.publishing.card import UNKNOWN_COMMIT
from flowzoo.publishing.stage import Staged
from flowzoo.weights.hub import HubSettings
from flowzoo.weights.hub.client import file_url, one_line

__all__ = ["upload"]


def upload(staged: Staged, hub: HubSettings, *, private: bool = False) -> Entry:
    """Publishes a staged model: makes the repository if it is missing, then commits all files.

    A second commit names the first in the card, since no commit can name itself.

    Args:
        staged: The model, which has passed its checks.
        hub: How to reach the Hub. Publishing sends the user's token, so it must not name a mirror.
        private: Whether a repository that is made shall be private.

    Returns:
        The entry with the commit's revision, after asking the Hub whether it has the file.

    Raises:
        InputError: Offline was asked for, or a mirror was named.
        WeightsUnavailable: The Hub refuses, or cannot be reached.
        IntegrityError: The Hub has another file than was sent.
    """
    if hub.offline:
        raise InputError(f"Cannot publish: {hub.offline_reason}.")
    if hub.endpoint:
        raise InputError(
            f"Cannot publish to {hub.endpoint}: it was named as a mirror, and publishing sends your token. To trust it "
            f"with that, set HF_ENDPOINT={hub.endpoint} instead of FLOWZOO_HUB_ENDPOINT or --endpoint."
        )
    entry, weights = staged.entry, staged.entry.weights
    assert weights is not None
    assert weights.repo_id is not None
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=hub.address, library_name="flowzoo")
    files = [CommitOperationAdd(name, staged.directory / name) for name in staged.filenames]
    try:
        api.create_repo(weights.repo_id, private=private, exist_ok=True)
        commit = api.create_commit(weights.repo_id, files, commit_message=f"Publish {entry.key}")
        _check_arrived(api, entry, str(commit.oid), hub)
        card = staged.directory / "README.md"
        write_text(card, card.read_text("utf-8").replace(UNKNOWN_COMMIT, str(commit.oid)))
        named = [CommitOperationAdd("README.md", card)]
        api.create_commit(
            weights.repo_id, named, commit_message=f"Name the commit of {entry.key} in its card"
        )
    except FlowzooError:
        raise
    except Exception as error:  # the client raises its HTTP library's errors, and that library changes
        raise _explain(error, weights.repo_id, hub) from error
    return dataclasses.replace(entry, weights=dataclasses.replace(weights, revision=str(commit.oid)))


def _check_arrived(api: object, entry: Entry, revision: str, hub: HubSettings) -> None:
    from huggingface_hub import get_hf_file_metadata

    weights = entry.weights
    assert weights is not None
    assert weights.repo_id is not None
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise IntegrityError(f"{hub.address} returned {revision!r} as the commit; expected 40 hex digits.")
    found = get_hf_file_metadata(
        file_url(hub, weights.repo_id, revision, weights.filename), endpoint=hub.address
    )
    digest = found.etag if re.fullmatch(r"[0-9a-f]{64}", found.etag or "") else weights.sha256
    if (found.size, digest) != (weights.size, weights.sha256):
        raise IntegrityError(
            f"{weights.filename} of {weights.repo_id}@{revision}: expected {weights.size} bytes with sha256 "
            f"{weights.sha256}, {hub.address} has {found.size} bytes with {digest}; publish again."
        )


def _explain(error: Exception, repo_id: str, hub: HubSettings) -> WeightsUnavailable:
    from huggingface_hub.errors import HfHubHTTPError

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in (401, 403):
        return WeightsUnavailable(
            f"{hub.address} does not let you write to {repo_id} (HTTP {status}): log in with `hf auth login`, "
            "with a token that may write there."
        )
    what = f"HTTP {status}" if status else type(error).__name__
    return WeightsUnavailable(
        f"{repo_id} was not published on {hub.address} ({what}: {one_line(error)}); nothing was written into the "
        "manifest. Run the same command again: what has arrived is not sent twice."
    )
