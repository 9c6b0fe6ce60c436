"""From a manifest entry to a verified weights file: overlay, wheel, Hub cache, Hub. Torch-free."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowzoo.errors import WeightsUnavailable
from flowzoo.weights.hub import (
    FileId,
    HubSettings,
    RemoteFile,
    cached_file,
    check_file,
    expand,
    fetch,
    problem_with,
)
from flowzoo.weights.hub.fetch import check_filename

if TYPE_CHECKING:
    from flowzoo.manifest.schema import Entry, Weights

__all__ = ["OVERLAY_VARIABLE", "local_copies", "locate", "remote_file"]

OVERLAY_VARIABLE = "FLOWZOO_WEIGHTS_DIR"
"""Names a directory of files called ``<sha256>.safetensors``, looked into before anything else."""


def locate(entry: Entry, hub: HubSettings) -> Path:
    """Returns the verified local weights file of an entry, fetching it if nothing local holds it.

    Raises:
        WeightsUnavailable: The weights exist nowhere that can be reached.
        IntegrityError: A copy that was found is not the file that the entry promises.
    """
    weights = entry.weights
    if weights is None:
        raise _unpublished(entry)
    expected = FileId(weights.sha256, weights.size)
    # A bad copy stops the search: stepping over it would hide that it is bad.
    for _, path, mend in _own_copies(entry, weights):
        return check_file(path, expected, mend)
    remote = remote_file(weights)
    if remote is None:
        raise _unpublished(entry)
    return fetch(remote, expected, hub, entry.name)


def local_copies(entry: Entry, hub: HubSettings) -> Iterator[tuple[str, Path]]:
    """Yields ``(source, path)`` of every local file that stands for an entry's weights, unchecked.

    The order is that of the search; sources are ``"overlay"``, ``"plugin"``, ``"distribution"`` (of weights
    alone) and ``"hub cache"``.
    """
    if entry.weights is not None:
        yield from ((source, path) for source, path, _ in _own_copies(entry, entry.weights))
        remote = remote_file(entry.weights)
        cached = cached_file(remote, hub) if remote else None
        if cached:
            yield "hub cache", cached


def remote_file(weights: Weights) -> RemoteFile | None:
    """The place of weights on the Hub, or None if they are not there."""
    if weights.revision is None or weights.repo_id is None:
        return None
    return RemoteFile(weights.repo_id, weights.revision, weights.filename)


def _own_copies(entry: Entry, weights: Weights) -> Iterator[tuple[str, Path, str]]:
    """Yields the copies outside the Hub's cache: where from, the file, and what mends a bad one."""
    if overlay := os.environ.get(OVERLAY_VARIABLE):
        path = expand(overlay) / f"{weights.sha256}.safetensors"
        # A dangling link is there too: whoever put it there expects it to be used.
        if os.path.lexists(path):
            yield "overlay", path, f"remove it, then run `flowzoo pull {entry.name} --to {overlay}`"
    package = package_directory(entry.architecture)
    bundled = package / "weights" / check_filename(weights.filename) if package else None
    if bundled and bundled.is_file() and not _is_another_models(bundled, weights):
        yield (
            "plugin",
            bundled,
            f"run `pip install --force-reinstall` for the plugin that provides {entry.architecture}",
        )
    shipped = _shipped_alone(entry, weights)
    if shipped and not _is_another_models(shipped, weights):
        yield (
            "distribution",
            shipped,
            "run `pip install --force-reinstall` for the distribution that brings it",
        )


def _shipped_alone(entry: Entry, weights: Weights) -> Path | None:
    """The file in a distribution that brings weights alone, if its manifest is the one that lists the entry."""
    from flowzoo.manifest.read import load_manifests
    from flowzoo.registry.manifests import has_manifests

    if not has_manifests():
        return None
    manifest = load_manifests()
    directory = manifest.directories.get(entry.key)
    if directory is None or entry not in manifest.entries:
        return None
    paths = [folder / check_filename(weights.filename) for folder in (directory / "weights", directory)]
    return next((path for path in paths if path.is_file()), None)


def _is_another_models(bundled: Path, weights: Weights) -> bool:
    """Whether a file of the wheel only happens to have the name that an entry's file has on the Hub."""
    if remote_file(weights) is None:
        return False
    try:
        return problem_with(bundled, FileId(weights.sha256, weights.size)) is not None
    except OSError:
        return True


def package_directory(architecture: str) -> Path | None:
    """The directory of the package that builds an architecture, found without running the model's code."""
    from flowzoo.registry import discover

    plugin = discover().get(architecture)
    if plugin is None or plugin.architecture is None:
        return None
    package = plugin.architecture.build.partition(":")[0].partition(".")[0]
    spec = importlib.util.find_spec(package)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]) if locations else None


def _unpublished(entry: Entry) -> WeightsUnavailable:
    what = (
        "trained weights yet" if entry.weights is None else "weights on the Hub yet, and none on this machine"
    )
    return WeightsUnavailable(
        f"{entry.name} has no {what}: train them with `flowzoo train {entry.name} --out RUN`, or take "
        f"the untrained model from flowzoo.create({entry.name!r})."
    )
