"""Checks of manifest entries that need no weights: against the installed code, and against the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowzoo.config import config_hash, config_to_dict, parse_config
from flowzoo.errors import FlowzooError, IntegrityError, ManifestError
from flowzoo.manifest.schema import Entry
from flowzoo.registry import config_class, get_architecture
from flowzoo.weights.plain_files import shown

if TYPE_CHECKING:
    from flowzoo.weights.hub import HubSettings

__all__ = ["Finding", "check_entry", "check_online"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check of one entry.

    Attributes:
        entry: The entry, ``name@version``.
        check: What was checked.
        detail: What was found; if it failed, what was expected and what to do.
        error: Exit code that the failure stands for, 0 if the check passed.
    """

    entry: str
    check: str
    detail: str
    error: int = 0

    @property
    def passed(self) -> bool:
        """True if the check passed."""
        return self.error == 0


def check_entry(entry: Entry) -> Iterator[Finding]:
    """Checks an entry against the installed code: plugin, config, hash, build on meta, counts, figures.

    Imports torch and allocates nothing. A check that fails ends no other, except those that need it.
    """
    plugin = _try(entry, "plugin", lambda: _plugin(entry))
    yield plugin
    if plugin.passed:
        config = _try(entry, "config", lambda: _config(entry))
        yield config
        if config.passed:
            yield _try(entry, "parameters", lambda: _parameters(entry))
        yield _try(entry, "citations", lambda: _citations(entry))
    yield _try(entry, "figures", lambda: _figures(entry))


def check_online(entry: Entry, hub: HubSettings) -> Iterator[Finding]:
    """Asks the Hub for size and digest of an entry's file at its pinned revision; downloads nothing."""
    weights = entry.weights
    if weights is None:
        return
    if weights.revision is None:
        yield Finding(entry.key, "online", "not on the Hub yet: its revision is null")
        return
    yield _try(entry, "online", lambda: _ask_hub(entry, hub))


def _try(entry: Entry, check: str, run: Callable[[], str]) -> Finding:
    try:
        return Finding(entry.key, check, run())
    except FlowzooError as error:
        return Finding(entry.key, check, str(error), error.exit_code)


def _plugin(entry: Entry) -> str:
    return f"{get_architecture(entry.architecture).name} is installed and ok"


def _config(entry: Entry) -> str:
    config = _parsed(entry)
    full = config_to_dict(config)
    missing = [key for key in full if key not in entry.config]
    if missing:
        raise ManifestError(f"config lacks {', '.join(missing)}; a manifest holds every field, defaults too.")
    found = config_hash(entry.architecture, full)
    if found != entry.config_hash:
        raise ManifestError(f"config_hash is {entry.config_hash}; the config hashes to {found}.")
    return f"complete, hash {found[:12]}"


def _parameters(entry: Entry) -> str:
    from flowzoo.factory import build_flow

    flow = build_flow(entry.architecture, _parsed(entry), device="meta")
    found = sum(parameter.numel() for parameter in flow.parameters() if parameter.requires_grad)
    if found != entry.num_params:
        raise ManifestError(f"num_params is {entry.num_params:,}; the model has {found:,}.")
    return f"{found:,}, built on the meta device"


def _citations(entry: Entry) -> str:
    known = [citation.key for citation in get_architecture(entry.architecture).citations]
    unknown = [key for key in entry.citations if key not in known]
    if unknown:
        raise ManifestError(f"citations has {', '.join(unknown)}; the architecture cites {', '.join(known)}.")
    return ", ".join(entry.citations) or "none"


def _figures(entry: Entry) -> str:
    if entry.status == "unpublished":
        return "none: not released"
    absent = [name for name in ("measured", "fingerprint") if getattr(entry, name) is None]
    if absent:
        raise ManifestError(
            f"it is {entry.status} and has no {' and no '.join(absent)}; measure and publish it."
        )
    assert entry.measured is not None
    if entry.measured.num_images != entry.data.num_images:
        raise ManifestError(
            f"measured.num_images is {entry.measured.num_images:,} and data.num_images "
            f"{entry.data.num_images:,}; measure on the whole split."
        )
    return f"{entry.measured.value:.4f} ± {entry.measured.stderr:.4f} {entry.measured.unit}"


def _parsed(entry: Entry) -> Any:
    try:
        return parse_config(config_class(entry.architecture), entry.config, f"{entry.key}: config")
    except FlowzooError:
        raise
    except ValueError as error:  # from the config's own checks on its values
        raise ManifestError(f"{entry.key}: config: {error}") from error


def _ask_hub(entry: Entry, hub: HubSettings) -> str:
    from flowzoo.weights.hub.client import announced
    from flowzoo.weights.resolve import remote_file

    weights = entry.weights
    remote = remote_file(weights) if weights else None
    assert weights is not None
    assert remote is not None
    found = announced(remote, hub)
    if found.revision != weights.revision:
        raise IntegrityError(
            f"asked for revision {weights.revision}; {hub.address} names {shown(found.revision)}."
        )
    if found.size != weights.size:
        raise IntegrityError(f"expected {weights.size} bytes; {hub.address} has {found.size}.")
    digest = found.digest
    if digest != weights.sha256:
        kind = "another SHA-256" if len(digest) == 64 else "no SHA-256 (the file is not stored as LFS)"
        raise IntegrityError(
            f"expected SHA-256 {weights.sha256}; {hub.address} has {kind}: {shown(digest) if digest else 'nothing'}."
        )
    return f"{found.size:,} bytes, SHA-256 {digest[:12]}, at {remote.repo_id}@{remote.revision[:12]}"
