"""``flowzoo list``: the models, presets and architectures that there are, and what is wrong with others.

What is imported takes most of the command's time, so the models are listed without importing any config, and
core's manifest, which was checked when it was written, is read for what is shown of it. Plugins' manifests
are read strictly, and so is core's beside them or where something in it is not as it should be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from flowzoo.cli.output import json_option, note, print_json, table
from flowzoo.manifest.raw import CORE, core_text, load_json, precedence
from flowzoo.registry import Plugin, PluginState, discover, survey
from flowzoo.registry.manifests import has_manifests, manifest_rows

if TYPE_CHECKING:
    from flowzoo.manifest.read import Manifest
    from flowzoo.manifest.schema import Entry

_MODEL_COLUMNS = ("model", "version", "architecture", "data", "measured", "published", "status")
_PRESET_COLUMNS = ("preset", "data", "published", "published_parameters", "recipe", "summary")
_ARCHITECTURE_COLUMNS = ("architecture", "state", "summary", "presets")
_REFERENCE_COLUMNS = ("data", "reference", "kind", "figure", "note")
_KINDS = {"inverse_kind": None, "density_passes": None, "sampling_passes": None, "valid_bpd": True}
"""Fields of an entry that JSON shows, with what an older entry means by leaving them out."""
_RIGHT = ("version", "measured", "published", "published parameters", "figure")


@click.command("list")
@click.option("--architectures", "what", flag_value="architectures", help="List the architectures instead.")
@click.option(
    "--presets", "what", flag_value="presets", help="List the names that flowzoo.create takes instead."
)
@click.option(
    "--references", "what", flag_value="references", help="List the baselines that models are compared with."
)
@click.option("--all", "every", is_flag=True, help="List every version of a model, not just the default one.")
@json_option
def list_models(what: str | None, every: bool, as_json: bool) -> None:
    """List the models of the zoo, with bits per dimension measured here and published.

    References are simple codes of the same images, with the bits per dimension that a model should beat.
    """
    columns: tuple[str, ...]
    problems: Sequence[str] = ()
    if what is None:
        plugins = survey()
        columns, (rows, problems) = _MODEL_COLUMNS, _model_rows(plugins, every)
    elif what == "references":
        plugins = survey()
        columns, (rows, problems) = _REFERENCE_COLUMNS, _reference_rows()
    else:
        plugins = discover()
        if what == "presets":
            columns, rows = _PRESET_COLUMNS, _preset_rows(plugins)
        else:
            columns, rows = _ARCHITECTURE_COLUMNS, _architecture_rows(plugins)
    if as_json:
        print_json(rows)
    else:
        cells = [_cells(row, columns) for row in rows]
        table([name.replace("_", " ") for name in columns], cells, right=_RIGHT)
    for problem in (*problems, *_unusable(plugins)):
        note(problem)
    if not rows and what is None:
        note("No manifest lists a model yet; `flowzoo list --presets` shows what can be trained.")


def _model_rows(plugins: Mapping[str, Plugin], every: bool) -> tuple[list[dict[str, Any]], Sequence[str]]:
    """The models of all manifests, and what is wrong with any of these.

    Raises:
        ManifestError: Core's own manifest is missing or invalid.
    """
    brought = any(plugin.architecture and plugin.architecture.manifest for plugin in plugins.values())
    if not brought and not has_manifests():
        data = load_json(core_text(), CORE)
        with suppress(LookupError, TypeError, ValueError, OverflowError):
            rows = _rows(data["models"], every)
            for row in rows:
                _cells(row, _MODEL_COLUMNS)  # what cannot be shown is left to the strict reader's error
            return rows, ()
    from flowzoo.manifest.read import load_manifests

    manifest = load_manifests()
    conflicts = [
        f"Model {name!r} is listed by {' and by '.join(sources)}; it cannot be loaded until one is gone."
        for name, sources in manifest.conflicts.items()
    ]
    return _rows(map(_shown, manifest.entries), every), (*conflicts, *_unread(manifest))


def _unread(manifest: Manifest) -> list[str]:
    return [f"A plugin's manifest cannot be read: {problem}" for problem in manifest.problems]


def _reference_rows() -> tuple[list[dict[str, Any]], Sequence[str]]:
    """The references of all manifests, best figure of a data set first, and what is wrong with any of these.

    Raises:
        ManifestError: Core's own manifest is missing or invalid.
    """
    from flowzoo.manifest.read import load_manifests

    manifest = load_manifests()
    rows = [
        {
            "reference": found.name,
            "kind": found.kind,
            "data": found.data.id,
            "preprocessing": found.data.preprocessing,
            "split": found.data.split,
            "num_images": found.data.num_images,
            "digest": found.data.digest,
            "unit": found.unit,
            "figure": found.figure,
            "stderr": found.stderr,
            "note": found.note,
            "command": found.command,
            "versions": dict(found.versions),
        }
        for found in sorted(manifest.references, key=lambda found: (found.data.id, found.figure, found.name))
    ]
    return rows, _unread(manifest)


def _shown(entry: Entry) -> dict[str, Any]:
    """The part of an entry that a list shows, as JSON values."""
    from flowzoo.config import config_to_dict  # what core's own manifest needs not wait for

    return {
        "name": entry.name,
        "version": entry.version,
        "architecture": entry.architecture,
        "data": {"id": entry.data.id},
        "measured": config_to_dict(entry.measured) if entry.measured else None,
        "published": asdict(entry.published) if entry.published else None,
        "status": entry.status,
        "figure_kind": entry.figure_kind,
        "labels": asdict(entry.labels) if entry.labels else None,
        **{name: getattr(entry, name) for name in _KINDS},
    }


def _rows(entries: Iterable[Mapping[str, Any]], every: bool) -> list[dict[str, Any]]:
    """Rows of the entries given as JSON values, by name and version; unless ``every``, one for each name."""
    ordered = sorted(entries, key=lambda entry: (entry["name"], entry["version"]))
    chosen = {entry["name"]: entry for entry in sorted(ordered, key=_precedence)}
    return [
        {
            "model": entry["name"],
            "version": entry["version"],
            "architecture": entry["architecture"],
            "data": entry["data"]["id"],
            "measured": entry["measured"],
            "published": _published(entry["published"]),
            "status": entry["status"],
            "figure_kind": entry["figure_kind"] if "figure_kind" in entry else _kind(entry),
            "labels": entry.get("labels"),
            **{name: entry.get(name, default) for name, default in _KINDS.items()},
        }
        for entry in ordered
        if every or chosen[entry["name"]] is entry
    ]


def _published(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A published figure with the field that older entries leave out."""
    return None if found is None else {**found, "incomparable": found.get("incomparable", [])}


def _kind(entry: Mapping[str, Any]) -> str | None:
    """What the measured figure is; of an older entry as its dequantization tells, see ``Entry.figure_kind``."""
    measured, kind = entry["measured"], entry.get("kind")
    if kind is None and measured is not None:
        kind = "bound" if measured["dequantization"] == "variational" else "exact"
    return kind


def _precedence(entry: Mapping[str, Any]) -> tuple[int, int]:
    return precedence(entry["status"], entry["version"])


def _preset_rows(plugins: Mapping[str, Plugin]) -> list[dict[str, Any]]:
    return [
        {
            "preset": f"{plugin.name}-{key}",
            "data": preset.dataset,
            "published": asdict(preset.published) if preset.published else None,
            "published_parameters": preset.parameters,
            "recipe": preset.recipe,
            "summary": preset.summary,
            "labels": preset.labels,
        }
        for plugin in plugins.values()
        for key, preset in (plugin.architecture.presets if plugin.architecture else {}).items()
    ]


def _architecture_rows(plugins: Mapping[str, Plugin]) -> list[dict[str, Any]]:
    return [
        {
            "architecture": plugin.name,
            "state": str(plugin.state),
            "summary": plugin.architecture.summary if plugin.architecture else plugin.cause,
            "presets": list(plugin.architecture.presets) if plugin.architecture else [],
        }
        for plugin in plugins.values()
    ]


def _cells(row: Mapping[str, Any], columns: tuple[str, ...]) -> list[object]:
    """A row's values as they are shown in a table: figures short, lists joined."""
    return [_cell(column, row[column], row) for column in columns]


def _cell(column: str, value: Any, row: Mapping[str, Any]) -> object:
    if isinstance(value, dict):
        return _figure(value, row)
    if isinstance(value, list):
        return " ".join(map(str, value))
    if column == "published_parameters" and value is not None:
        return f"{value:,}"
    if column == "figure":
        return f"{value:.4f}" + ("" if row["stderr"] is None else f" ± {row['stderr']:.4f}")
    return value


_SIGNS = {"bound": "≤ ", "unbiased": "≈ ", "biased": "≈ "}


def _figure(figure: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Bits per dimension, or nats of vectors, with the standard error where it is known and a sign for what it is."""
    if "stderr" not in figure:
        return f"{figure['bpd']:.2f}"
    labels = row.get("labels")
    given = " (x|y)" if labels and labels["figure"] == "x|y" else ""
    value, unit = (figure["nats"], " nats") if figure["bpd"] is None else (figure["bpd"], "")
    return f"{_SIGNS.get(row.get('figure_kind') or '', '')}{value:.4f} ± {figure['stderr']:.4f}{unit}{given}"


def _unusable(plugins: Mapping[str, Plugin]) -> Iterator[str]:
    known = (PluginState.OK, PluginState.DISABLED)  # who disables a plugin need not be told
    rows = [*plugins.values(), *manifest_rows()]
    names = [plugin.name for plugin in rows if plugin.state not in known]
    if names:
        yield f"Not usable: {', '.join(names)}; see `flowzoo plugins`."
