"""Weights manifests: core's and every plugin's, strictly parsed and merged; lookup by name and version."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from flowzoo.api import Published
from flowzoo.config import config_to_dict
from flowzoo.errors import ManifestError, UnknownModel, did_you_mean
from flowzoo.manifest.raw import CORE, MAX_BYTES, SCHEMA, core_manifest_path, core_text, load_json, precedence
from flowzoo.manifest.references import Reference, in_order
from flowzoo.manifest.rules import ENTRY_RULES
from flowzoo.manifest.schema import Data, Entry, Fingerprint, Measured, Training, Weights
from flowzoo.manifest.typed_json import json_schema, read
from flowzoo.registry import Plugin, PluginState, survey
from flowzoo.registry.files import read_small_text
from flowzoo.registry.isolation import ForeignFailure, bounded, shortened
from flowzoo.registry.manifests import manifest_rows

__all__ = [
    "SCHEMA",
    "Data",
    "Entry",
    "Fingerprint",
    "Manifest",
    "Measured",
    "Published",
    "Reference",
    "Training",
    "Weights",
    "check_append_only",
    "core_manifest_path",
    "dump",
    "list_models",
    "load_manifests",
    "merge",
    "parse",
    "schema",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A manifest file as it lies on disk."""

    schema: Literal[1]
    models: tuple[Entry, ...]
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Models by name and version, out of one file or of several merged.

    Attributes:
        entries: All entries, ordered by name and version. Names in conflict are not among them.
        sources: Which file each entry comes from, by ``name@version``.
        conflicts: Names that more than one source lists, each with those sources.
        problems: Plugins' manifests that could not be read, one line each.
        directories: The directory of the manifest that lists an entry, by ``name@version``, where its weights may lie
            beside it: of distributions that bring weights alone.
        references: Figures of no model, ordered by data set and name; of merged files those of all.
    """

    entries: tuple[Entry, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    conflicts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    directories: Mapping[str, Path] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()

    def names(self) -> list[str]:
        """Names of the models, sorted, each once."""
        return sorted({entry.name for entry in self.entries})

    def versions(self, name: str) -> list[Entry]:
        """All entries of a name, oldest first."""
        return [entry for entry in self.entries if entry.name == name]

    def default(self, name: str) -> Entry | None:
        """The entry that the bare name stands for: the version of greatest :func:`~flowzoo.manifest.raw.precedence`."""
        found = self.versions(name)
        return max(found, key=lambda entry: precedence(entry.status, entry.version), default=None)

    def get(self, name: str) -> Entry:
        """The entry of ``"glow-mnist"`` (its default version) or ``"glow-mnist@2"``.

        Raises:
            UnknownModel: There is no such name or version; the message suggests names.
            ManifestError: More than one source lists the name; the message names them.
        """
        base, at, version = name.partition("@")
        if base in self.conflicts:
            raise ManifestError(
                f"The model {base!r} is listed by {' and by '.join(self.conflicts[base])}; flowzoo does not "
                "choose between them. Uninstall or disable one (FLOWZOO_DISABLE_PLUGINS=architecture)."
            )
        default = self.default(base)
        if default is None:
            unread = "".join(f"\n  A manifest could not be read: {problem}" for problem in self.problems)
            raise UnknownModel(
                f"No manifest lists a model {base!r}.{did_you_mean(base, self.names())} "
                f"`flowzoo list` shows all models.{unread}"
            )
        if not at:
            return default
        for entry in self.versions(base):
            if str(entry.version) == version:
                return entry
        known = ", ".join(entry.key for entry in self.versions(base))
        raise UnknownModel(f"The model {base!r} has no version {version!r}. It has: {known}.")


def parse(text: str, where: str) -> Manifest:
    """Reads a manifest file.

    Args:
        text: Its content.
        where: What it is called in errors.

    Raises:
        ManifestError: It is not JSON, or violates the schema; the message has the JSON path.
    """
    file: _File = read(_File, load_json(text, where), where)
    found: dict[str, Entry] = {}
    for index, entry in enumerate(file.models):
        for fault in entry.faults():
            raise ManifestError(f"{where}: $.models[{index}]: {fault}.")
        if entry.key in found:
            raise ManifestError(
                f"{where}: $.models[{index}]: {entry.key} is listed twice; give one a new version."
            )
        found[entry.key] = entry
    return Manifest(
        entries=_ordered(found.values()),
        sources=dict.fromkeys(found, where),
        references=_references(file.references, where),
    )


def _references(listed: tuple[Reference, ...], where: str) -> tuple[Reference, ...]:
    seen: set[tuple[str, str, str]] = set()
    for index, reference in enumerate(listed):
        if reference.key in seen:
            raise ManifestError(
                f"{where}: $.references[{index}]: the {reference.kind} {reference.name!r} of {reference.data.id} is "
                "listed twice; keep one."
            )
        seen.add(reference.key)
    return in_order(listed)


def dump(manifest: Manifest) -> str:
    """The manifest as canonical JSON: entries by name and version, references by data set and name.

    Keys are in the schema's order. Fields that the schema gained later are left out at their default, and references
    where there are none, so that an older flowzoo reads what needs none.

    ``parse(dump(manifest))`` has the same entries and references, and ``dump(parse(text))`` is ``text`` if that came
    from here. Numbers are written so that they read back exactly.
    """
    data: dict[str, Any] = {"schema": SCHEMA}
    data["models"] = [config_to_dict(entry) for entry in _ordered(manifest.entries)]
    if manifest.references:
        data["references"] = [config_to_dict(reference) for reference in in_order(manifest.references)]
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest file: docs/manifest.schema.json."""
    found = json_schema(_File)
    found["properties"]["models"]["items"]["allOf"] = ENTRY_RULES
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flowzoo weights manifest",
        "description": (
            "Names and versions are unique within a file, as are the names of a data set's references, which JSON "
            "Schema cannot say."
        ),
        **found,
    }


def merge(manifests: Iterable[Manifest]) -> Manifest:
    """One manifest out of several; a name that more than one lists is a conflict and belongs to none."""
    parts = list(manifests)
    owners: dict[str, list[str]] = {}
    for part in parts:
        sources_of = {entry.name: part.sources[entry.key] for entry in part.entries}
        for name in part.names():
            owners.setdefault(name, []).append(sources_of[name])
    conflicts = {name: tuple(sources) for name, sources in owners.items() if len(sources) > 1}
    entries = [entry for part in parts for entry in part.entries if entry.name not in conflicts]
    return Manifest(
        entries=_ordered(entries),
        sources={
            e.key: part.sources[e.key] for part in parts for e in part.entries if e.name not in conflicts
        },
        conflicts=conflicts,
        problems=tuple(problem for part in parts for problem in part.problems),
        directories={
            key: path
            for part in parts
            for key, path in part.directories.items()
            if key.partition("@")[0] not in conflicts
        },
        references=in_order(reference for part in parts for reference in part.references),
    )


def load_manifests() -> Manifest:
    """Core's manifest, those of all plugins whose architecture can be read, and those that come alone, merged.

    A plugin's manifest that cannot be read is a line in ``problems``: it takes nothing else down.

    Raises:
        ManifestError: Core's own manifest is missing or invalid.
    """
    parts = [parse(core_text(), CORE)]
    seen: set[str] = set()
    for plugin in survey().values():
        reference = plugin.architecture.manifest if plugin.architecture else None
        if reference is not None and reference not in seen:
            seen.add(reference)
            parts.append(_plugin_manifest(plugin, reference))
    return merge([*parts, *(manifest for _, manifest in shipped_manifests())])


def shipped_manifests() -> list[tuple[Plugin, Manifest]]:
    """The distributions that bring weights alone, each with its manifest; of one that is not ``ok`` an empty one.

    See :mod:`flowzoo.registry.manifests`. One whose manifest cannot be read is ``broken``.
    """
    return [
        (row, Manifest()) if row.manifest is None else _shipped(row, row.manifest) for row in manifest_rows()
    ]


def _shipped(row: Plugin, path: str) -> tuple[Plugin, Manifest]:
    where = f"{row.distribution} {row.version} ({shortened(row.entry_point, 200)})"
    try:
        found = parse(bounded(lambda: read_small_text(path, MAX_BYTES)), where)
    except (ForeignFailure, ManifestError) as error:
        cause = str(error) if isinstance(error, ManifestError) else f"{where}: {error}"
        broken = replace(
            row, state=PluginState.BROKEN, cause=shortened(cause, 1_000), mend=row.upgrade, manifest=None
        )
        return broken, Manifest(problems=(broken.cause,))
    return row, replace(found, directories=dict.fromkeys(found.sources, Path(path).parent))


def list_models() -> list[str]:
    """Names of the models that the manifests list, sorted."""
    return load_manifests().names()


def check_append_only(old: Manifest, new: Manifest) -> tuple[str, ...]:
    """The promises of an old manifest that a new one takes back, one line each; none is good.

    A released or deprecated ``name@version`` keeps its config, its weights and its figures for good.
    It may be deprecated, be put on the Hub, and get figures that it lacked. References promise nothing.
    """
    after = {entry.key: entry for entry in new.entries}
    broken: list[str] = []
    for entry in old.entries:
        if entry.status == "unpublished":
            continue
        if entry.key not in after:
            broken.append(f"{entry.key} was released and is gone; put it back (deprecate it instead)")
            continue
        broken += [
            f"{entry.key}: {name} was {was!r} and is {now!r}; restore it and release a new version instead"
            for name, was, now in _promises(entry, after[entry.key])
            if was is not None and was != now
        ]
    return tuple(broken)


def _promises(old: Entry, new: Entry) -> list[tuple[str, Any, Any]]:
    """Name, old and new value of everything that a release fixes."""
    names = ("architecture", "config", "config_hash", "num_params", "data")
    figures = (
        "measured",
        "one_sample_bpd",
        "fingerprint",
        "sampling",
        "kind",
        "labels",
        "valid_bpd",
        "compressed",
        "uniform_noise",
        "several_samples",
    )
    found = [(name, getattr(old, name), getattr(new, name)) for name in (*names, *figures)]
    found += [
        (f"weights.{name}", getattr(old.weights, name, None), getattr(new.weights, name, None))
        for name in ("filename", "sha256", "size", "dtype", "revision")
    ]
    if new.status == "unpublished":
        found.append(("status", old.status, new.status))
    return found


def _ordered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.name, entry.version)))


def _plugin_manifest(plugin: Plugin, reference: str) -> Manifest:
    """A plugin's manifest; one that cannot be read is an empty one with a problem."""
    where = f"{plugin.distribution} {plugin.version} ({shortened(reference, 200)})"
    package, _, filename = reference.partition(":")
    try:
        return parse(bounded(lambda: _resource(package, filename)), where)
    except ForeignFailure as failure:
        return Manifest(problems=(f"{where}: {failure}",))
    except ManifestError as error:
        return Manifest(problems=(shortened(str(error), 1_000),))


def _resource(package: str, filename: str) -> str:
    """The text of a file in a package, which may be an archive."""
    from importlib.resources import files

    resource = files(package) / filename
    return (
        read_small_text(str(resource), MAX_BYTES)
        if isinstance(resource, Path)
        else resource.read_text("utf-8")
    )
