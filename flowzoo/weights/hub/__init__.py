"""From a pinned file on the Hugging Face Hub, or a mirror of it, to a verified local file. Torch-free.

The hash decides: whatever serves the bytes needs no trust, and nothing that has another size or digest
than expected is ever handed on.
"""

from __future__ import annotations

from flowzoo.weights.hub.digest import FileId, check_file, problem_with
from flowzoo.weights.hub.fetch import RemoteFile, cached_file, fetch, fetch_unlisted
from flowzoo.weights.hub.settings import HubSettings, hub_settings

__all__ = [
    "FileId",
    "HubSettings",
    "RemoteFile",
    "cached_file",
    "check_file",
    "fetch",
    "fetch_unlisted",
    "hub_settings",
    "problem_with",
]
