"""The Hub's address, whether it may be asked, and its cache: read from the environment at call time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flowzoo.errors import InputError

__all__ = ["HubSettings", "expand", "hub_settings"]

_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True, slots=True)
class HubSettings:
    """The way to the Hub and its cache.

    Attributes:
        endpoint: Base address of a mirror without a trailing slash; None for the Hub itself, which is the address
            that the client was set up for (HF_ENDPOINT).
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
        InputError: The endpoint is not an http(s) address, or the cache is no path.
    """
    named = endpoint or os.environ.get("FLOWZOO_HUB_ENDPOINT")
    where = _mirror(named) if named else None
    reason = ""
    if offline:
        reason = "offline was asked for"
    elif offline is None:
        variable = next((name for name in ("FLOWZOO_OFFLINE", "HF_HUB_OFFLINE") if _is_set(name)), None)
        reason = f"{variable} is set" if variable else ""
    return HubSettings(where, bool(reason), reason, _cache_dir(cache_dir))


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in _TRUE


def _mirror(where: str) -> str | None:
    """The address in the form used everywhere; None if it is the one that the Hub's client trusts anyway."""
    try:
        parts = urlsplit(where)
        # A password would end up in errors and logs.
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        sound = sound and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:
        sound = False
    if not sound or re.search(r"[\s\x00-\x1f]", where):
        raise InputError(
            f"The Hub endpoint {where.rpartition('@')[2]!r} is not a web address, or holds more than one; give one "
            "such as 'https://hub.example.org'."
        )
    from huggingface_hub import constants

    where = where.rstrip("/")
    return None if where == constants.ENDPOINT else where


def expand(path: str | os.PathLike[str]) -> Path:
    """A path with its ``~`` replaced.

    Raises:
        InputError: It is no path; or there is no such user, or no home directory.
    """
    given: object = path  # whatever a caller gives
    if not isinstance(given, str | os.PathLike) or "\0" in os.fspath(given):
        raise InputError(f"{path!r} is no path; give the name of a directory.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{os.fspath(path)!r} cannot be expanded ({error}); write the whole path."
        ) from error


def _cache_dir(given: str | os.PathLike[str] | None) -> Path:
    if given is not None:
        return expand(given)
    if direct := os.environ.get("HF_HUB_CACHE"):
        return expand(direct)
    if home := os.environ.get("HF_HOME"):
        return expand(home) / "hub"
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
