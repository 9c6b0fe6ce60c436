"""From a pinned file on the Hugging Face Hub, or a mirror of it, to a verified local file. Torch-free.

The hash decides: whatever serves the bytes needs no trust, and nothing that has another size or digest
than expected is ever handed on.
"""

from __future__ import annotations

from flowzoo.weights.hub.digest import FileId, check_file, problem_with
from flowzoo.weights.hub.fetch import RemoteFile, cached_file, fetch, fetch_unlisted, one_at_a_time, place_of
from flowzoo.weights.hub.settings import HubSettings, expand, hub_settings

__all__ = [
    "FileId",
    "HubSettings",
    "RemoteFile",
    "cached_file",
    "check_file",
    "expand",
    "fetch",
    "fetch_unlisted",
    "hub_settings",
    "one_at_a_time",
    "place_of",
    "problem_with",
]
