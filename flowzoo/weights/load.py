"""``load``: a name in, the trained model out, or an error. Never random weights, never half-loaded ones.

A name is looked up in the weights manifests. Two prefixes reach weights that no manifest lists:
``hf:org/repo@<40 hex digits>`` and ``path:DIR``, each holding ``flowzoo.json`` and the weights beside it.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowzoo.config import config_hash
from flowzoo.devices import find_device
from flowzoo.errors import (
    ConfigError,
    InputError,
    IntegrityError,
    PluginError,
    UnknownModel,
    WeightsUnavailable,
)
from flowzoo.weights.external import Unlisted, locate_unlisted
from flowzoo.weights.hub import HubSettings, hub_settings
from flowzoo.weights.resolve import locate

if TYPE_CHECKING:
    import torch

    from flowzoo.flow import Flow
    from flowzoo.manifest.schema import Entry

__all__ = ["find_entry", "load", "prepare"]


def load(
    name: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    offline: bool | None = None,
    endpoint: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Flow:
    """Loads a trained flow.

    The weights file is looked for in the directory FLOWZOO_WEIGHTS_DIR (as ``<sha256>.safetensors``), in
    the plugin's own package, in the Hub's cache and on the Hub at the pinned revision. Wherever it comes
    from, its size, digest, header, names, shapes and values are checked.

    Args:
        name: A model of ``flowzoo list``, such as ``"glow-mnist"`` or ``"glow-mnist@2"``; or
            ``"hf:org/repo@<40 hex digits of a commit>"``; or ``"path:DIR"``.
        device: Where the flow shall be; None for the CPU.
        dtype: ``torch.float32`` (None means that too) or ``torch.float64``.
        offline: Whether to make no request; None asks FLOWZOO_OFFLINE and HF_HUB_OFFLINE.
        endpoint: A mirror of the Hub; None asks FLOWZOO_HUB_ENDPOINT.
        cache_dir: The Hub's cache; None asks HF_HUB_CACHE and HF_HOME.

    Returns:
        The flow in eval mode; ``flow.card`` is its manifest entry.

    Raises:
        UnknownModel: No manifest lists the name.
        PluginError: The architecture's plugin cannot be used.
        WeightsUnavailable: The weights are nowhere to be had from here.
        IntegrityError: A file is not what was promised.
        InputError: An argument is unusable; a bare path or repository id is one.
    """
    import torch

    if dtype not in (None, torch.float32, torch.float64):
        raise InputError(
            f"dtype is {dtype}; a likelihood needs torch.float32 or torch.float64. "
            "For half-precision networks call flow.set_network_dtype(...)."
        )
    target = find_device("cpu" if device is None else device, computing=True)
    card, path = prepare(_text(name), hub_settings(offline=offline, endpoint=endpoint, cache_dir=cache_dir))
    flow = _assemble(card, path)
    flow.card = card
    return flow.to(device=target, dtype=dtype or torch.float32).eval()


def _text(name: object) -> str:
    if isinstance(name, str):
        return name
    spelling = (
        f"; write {f'path:{os.fspath(name)}'!r} for a directory" if isinstance(name, os.PathLike) else ""
    )
    raise InputError(f"The name is a {type(name).__name__}; expected a text such as 'glow-mnist'{spelling}.")


def prepare(name: str, hub: HubSettings) -> tuple[Entry | Unlisted, Path]:
    """Does what loading does short of building the model: entry, plugin, config, verified file.

    Raises:
        FlowzooError: As for :func:`load`.
    """
    if name.startswith(("hf:", "path:")):
        card, path = locate_unlisted(name, hub)
        _config_of(card)
        return card, path
    entry = find_entry(name)
    _config_of(entry)
    return entry, locate(entry, hub)


def find_entry(name: str) -> Entry:
    """Looks a model's name up in all manifests.

    Raises:
        UnknownModel: No manifest lists it; the message suggests names.
        WeightsUnavailable: It is a preset that has no weights.
        InputError: The name is a path or a repository id without its prefix.
    """
    from flowzoo.factory import preset_names
    from flowzoo.manifest.read import load_manifests

    manifest = load_manifests()
    try:
        entry = manifest.get(name)
    except UnknownModel:
        if "/" in name or "\\" in name or name.startswith((".", "~")) or Path(name).exists():
            repo = name.split("@", maxsplit=1)[0]
            repo = repo if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", repo) else "org/name"
            raise InputError(
                f"{name!r} is not a model's name, and could mean two things; write 'path:{name}' for a local "
                f"directory, or 'hf:{repo}@<40 hex digits of a commit>' for a repository on the Hub."
            ) from None
        if name in preset_names() and not manifest.problems:
            raise WeightsUnavailable(
                f"{name} is a preset, and no manifest lists weights for it: train it with "
                f"`flowzoo train {name} --out RUN`, or take the untrained model from flowzoo.create({name!r})."
            ) from None
        raise
    if entry.status == "deprecated":
        warnings.warn(f"{entry.name}@{entry.version} is deprecated.", FutureWarning, stacklevel=3)
    return entry


def _config_of(card: Entry | Unlisted) -> Any:
    """The card's config as its plugin's dataclass, after checking that it hashes to what the card says."""
    from flowzoo.config import config_to_dict, parse_config
    from flowzoo.registry import config_class

    try:
        config = parse_config(config_class(card.architecture), card.config, f"{card.name}: config")
    except ConfigError:
        raise
    except ValueError as error:  # from the config's own checks on its values
        raise ConfigError(f"{card.name}: config: {error}") from error
    found = config_hash(card.architecture, config_to_dict(config))
    if card.config_hash != found:
        raise IntegrityError(
            f"{card.name}: expected config_hash {card.config_hash}, found {found}; the installed plugin "
            "reads this config differently from the one that wrote it: install the version that fits."
        )
    return config


def _assemble(card: Entry | Unlisted, path: Path) -> Flow:
    from flowzoo.factory import build_flow
    from flowzoo.registry.isolation import gave_up
    from flowzoo.weights.checkpoint import check_header, load_weights, read_header
    from flowzoo.weights.skip_init import bounded_build, build_to_load

    assert card.weights is not None
    config = _config_of(card)
    header = read_header(path)
    # Before anything is allocated: the config may ask for more memory or time than there is.
    with bounded_build(len(header.tensors), f"{card.name}: config"):
        try:
            wanted = build_flow(card.architecture, config, device="meta").state_dict()
        except PluginError as error:
            # Its plugin looks at values; if the config is at fault, the next build says so.
            if gave_up(error):
                raise
        else:
            check_header(header, wanted, path, stored_dtype=card.weights.dtype)
        flow = build_to_load(card.architecture, config)
    load_weights(flow, path, stored_dtype=card.weights.dtype)
    return flow
