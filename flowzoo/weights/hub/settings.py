"""Where the Hub is, whether it may be asked, where its cache lies: read from the environment at call time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flowzoo.errors import InputError

__all__ = ["HubSettings", "hub_settings"]

_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True, slots=True)
class HubSettings:
    """How to reach the Hub.

    Attributes:
        endpoint: Base address of a mirror without a trailing slash, or None for the client's own.
        offline: Whether no request may be made.
        offline_reason: What asked for that, for error messages; empty when online.
        cache_dir: The Hub client's cache directory.
    """

    endpoint: str | None
    offline: bool
    offline_reason: str
    cache_dir: Path

    @property
    def address(self) -> str:
        """The Hub's address as error messages name it."""
        if self.endpoint:
            return self.endpoint
        from huggingface_hub import constants

        return str(constants.ENDPOINT)

    @property
    def download_token(self) -> bool | None:
        """What to pass as a token when downloading.

        A mirror is told no secret: it needs no trust, and a token would be trust. None lets the client
        use the token that the user logged in with, at the address that the client was set up for.
        """
        return False if self.endpoint else None


def hub_settings(
    *,
    offline: bool | None = None,
    endpoint: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> HubSettings:
    """Merges arguments with the environment as it is now.

    The Hub's client reads its variables once, when it is imported; flowzoo reads them at each call.

    Args:
        offline: Whether to make no request; None asks FLOWZOO_OFFLINE, then HF_HUB_OFFLINE.
        endpoint: Address of the Hub or a mirror; None asks FLOWZOO_HUB_ENDPOINT.
        cache_dir: The cache; None asks HF_HUB_CACHE, then HF_HOME.

    Raises:
        InputError: The endpoint is not an http(s) address.
    """
    where = endpoint or os.environ.get("FLOWZOO_HUB_ENDPOINT") or None
    if where is not None:
        parts = urlsplit(where)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(
                f"The Hub endpoint {where!r} is not a web address; give one such as 'https://hub.example.org'."
            )
        where = where.rstrip("/")
    reason = ""
    if offline:
        reason = "offline was asked for"
    elif offline is None:
        named = next((name for name in ("FLOWZOO_OFFLINE", "HF_HUB_OFFLINE") if _is_set(name)), None)
        reason = f"{named} is set" if named else ""
    return HubSettings(where, bool(reason), reason, _cache_dir(cache_dir))


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in _TRUE


def _cache_dir(given: str | os.PathLike[str] | None) -> Path:
    if given is not None:
        return Path(given).expanduser()
    if direct := os.environ.get("HF_HUB_CACHE"):
        return Path(direct).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
