"""Weights that no manifest lists: a directory or a pinned repository that holds ``flowzoo.json`` too.

``flowzoo.json`` names the architecture, its full config and the weights file with size and digest; further
keys (data, measurements, training) travel along. It never names code: the architecture has to be installed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowzoo.errors import ConfigError, InputError, IntegrityError, ManifestError, WeightsUnavailable
from flowzoo.manifest.schema import Weights
from flowzoo.manifest.typed_json import read
from flowzoo.weights.hub import FileId, HubSettings, RemoteFile, check_file, expand, fetch, fetch_unlisted
from flowzoo.weights.plain_files import open_regular, parse_json, shown

__all__ = [
    "CARD_FILENAME",
    "CONFIG_FILENAME",
    "WEIGHTS_FILENAME",
    "Unlisted",
    "card_file",
    "locate_unlisted",
    "read_card",
]

CARD_FILENAME = "flowzoo.json"
CONFIG_FILENAME = "config.json"
WEIGHTS_FILENAME = "model.safetensors"
_SCHEMA = 1
_MAX_CARD_BYTES = 1_000_000
_REFERENCE = re.compile(r"hf:(?P<repo>[^@]+)@(?P<revision>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlisted:
    """A model that no manifest lists, as its ``flowzoo.json`` describes it.

    Attributes:
        name: What its author calls it.
        architecture: Name of the architecture.
        config: The architecture's full config as JSON values.
        config_hash: Hash of architecture and config, 64 hex digits.
        weights: The weights file.
        details: Whatever else the file says; nothing of it is trusted or needed.
    """

    name: str
    architecture: str
    config: Mapping[str, Any]
    config_hash: str
    weights: Weights
    details: Mapping[str, Any] = field(default_factory=dict)


def read_card(path: Path) -> Unlisted:
    """Reads a ``flowzoo.json``.

    Raises:
        WeightsUnavailable: There is none.
        ConfigError: It is not of the form that this version of flowzoo reads.
        ManifestError: Its account of the weights is not well formed.
    """
    try:
        with open_regular(path) as file:
            text = file.read(_MAX_CARD_BYTES + 1)
    except OSError as error:
        raise WeightsUnavailable(
            f"{path} cannot be read ({error.strerror or 'it is not a regular file'}); expected a directory with "
            f"{CARD_FILENAME} and {WEIGHTS_FILENAME}, as `flowzoo export` writes it."
        ) from error
    if len(text) > _MAX_CARD_BYTES:
        raise ConfigError(f"{path} is longer than {_MAX_CARD_BYTES} bytes; export the model again.")
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}); export the model again.") from error
    if not isinstance(data, dict) or data.get("schema") != _SCHEMA:
        raise ConfigError(f"{path} is not a flowzoo.json of schema {_SCHEMA}; use the flowzoo that wrote it.")
    return _parse(data, path)


def locate_unlisted(reference: str, hub: HubSettings) -> tuple[Unlisted, Path]:
    """Resolves ``hf:org/repo@<40 hex digits>`` or ``path:DIR`` to a card and a verified weights file.

    Raises:
        InputError: The reference is not of one of these forms.
        WeightsUnavailable: There is nothing there, or it cannot be reached.
        IntegrityError: The weights are not what ``flowzoo.json`` says.
    """
    directory = _directory(reference)
    if directory is not None:
        card = read_card(directory / CARD_FILENAME)
        path = directory / card.weights.filename
        return card, check_file(path, _id(card), f"it is not what {CARD_FILENAME} describes; export it again")
    remote = _remote_card(reference)
    card = _fetch_card(remote, hub)
    _be_counted(remote, hub)
    return card, fetch(dataclasses.replace(remote, filename=card.weights.filename), _id(card), hub, reference)


def card_file(reference: str, hub: HubSettings) -> Path:
    """The local ``flowzoo.json`` of a reference that :func:`locate_unlisted` has resolved."""
    directory = _directory(reference)
    if directory is not None:
        return directory / CARD_FILENAME
    return fetch_unlisted(_remote_card(reference), hub, max_bytes=_MAX_CARD_BYTES)


def _directory(reference: str) -> Path | None:
    """The directory that a ``path:`` names; None for another kind of reference."""
    kind, _, rest = reference.partition(":")
    if kind != "path":
        return None
    if not rest.strip():
        raise InputError("'path:' names no directory; write 'path:DIR'.")
    return expand(rest)


def _remote_card(reference: str) -> RemoteFile:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(
            f"{reference!r} names no commit; write 'hf:org/repo@<40 hex digits of a commit>', since a branch "
            "may hold something else tomorrow."
        )
    return RemoteFile(match["repo"], match["revision"], CARD_FILENAME)


def _fetch_card(remote: RemoteFile, hub: HubSettings) -> Unlisted:
    """Fetches and reads ``flowzoo.json``; a cached copy that cannot be read is replaced, once."""
    path = fetch_unlisted(remote, hub, max_bytes=_MAX_CARD_BYTES)
    try:
        return read_card(path)
    except (ConfigError, ManifestError):
        if hub.offline:
            raise
        return read_card(fetch_unlisted(remote, hub, max_bytes=_MAX_CARD_BYTES, force=True))


def _be_counted(remote: RemoteFile, hub: HubSettings) -> None:
    """Asks once for the file by whose requests the Hub counts downloads; a repository without it loads as well."""
    if hub.endpoint:
        return  # a mirror's requests are not the Hub's
    with contextlib.suppress(WeightsUnavailable, IntegrityError):
        config = dataclasses.replace(remote, filename=CONFIG_FILENAME)
        fetch_unlisted(config, hub, max_bytes=_MAX_CARD_BYTES)


def _id(card: Unlisted) -> FileId:
    return FileId(card.weights.sha256, card.weights.size)


def _parse(data: dict[str, Any], path: Path) -> Unlisted:
    needed = {"name": str, "architecture": str, "config": dict, "config_hash": str, "weights": dict}
    for key, kind in needed.items():
        if not isinstance(data.get(key), kind):
            raise ConfigError(f"{path}: {key} is {shown(data.get(key))}; expected {kind.__name__}.")
    weights = read(Weights, data["weights"], str(path), "$.weights")
    details = {key: value for key, value in data.items() if key not in needed and key != "schema"}
    return Unlisted(**{key: data[key] for key in needed} | {"weights": weights}, details=details)
