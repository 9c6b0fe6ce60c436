"""``flowzoo info``: everything known about a model, a preset or an architecture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from flowzoo.api import Architecture, Citation, Preset
from flowzoo.cli.output import fields, json_option, print_json, print_line, table
from flowzoo.config import config_hash, config_to_dict
from flowzoo.config_fields import ConfigField, config_fields
from flowzoo.errors import FlowzooError, PluginError, UnknownModel, did_you_mean
from flowzoo.factory import preset_names, resolve
from flowzoo.manifest.read import Entry, Manifest, load_manifests
from flowzoo.registry import config_class, get_architecture, get_plugin, plugin_names
from flowzoo.registry.isolation import ForeignFailure
from flowzoo.weights.hub import hub_settings

_COUNTS = ("num_params", "size", "num_images", "reconstruction_exact", "steps", "count")
_NOTHING: tuple[Any, ...] = (None, "", {}, [], ())


@click.command()
@click.argument("name")
@click.option("--stack", is_flag=True, help="Print the stack of bijectors with shapes and parameters.")
@click.option("--bibtex", is_flag=True, help="Print the papers as BibTeX, and nothing else.")
@json_option
def info(name: str, stack: bool, bibtex: bool, as_json: bool) -> None:
    """Show everything about NAME: a model (glow-mnist, glow-mnist@1), a preset, an architecture, a run or a path.

    Of an architecture it shows the fields of its config too: type, default and meaning.
    """
    subject = _external(name) or _subject(name)
    if bibtex:
        for citation in subject.citations:
            print_line(citation.bibtex())
        return
    details = subject.details() | ({"stack": _summary(subject)} if stack else {})
    if as_json:
        print_json(details)
        return
    drawn, config = details.pop("stack", None), details.pop("config_fields", None)
    fields(_shown(details, subject.citations))
    if config:
        print_line()
        _show_config(config)
    if drawn is not None:
        print_line()
        print_line(drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """The thing that a name on the command line turned out to be; only an architecture has no config.

    ``create`` is the call that builds what bears the name, untrained, if there is one; ``described`` is all that a run
    or a directory says of itself.
    """

    name: str
    kind: str
    architecture: Architecture | None
    architecture_name: str
    preset: Preset | None = None
    entry: Entry | None = None
    config: Mapping[str, Any] | None = None
    source: str = ""
    create: str | None = None
    described: Mapping[str, Any] | None = None

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The papers; of a model, those that its entry names."""
        found = self.architecture.citations if self.architecture else ()
        return tuple(c for c in found if self.entry is None or c.key in self.entry.citations)

    def details(self) -> dict[str, Any]:
        """Everything as JSON values."""
        plugin = get_plugin(self.architecture_name) if self.architecture_name else None
        facts: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.entry is not None:
            stored = asdict(self.entry)
            del stored["kind"]  # the name of what the subject is; an older entry's figure has a kind as well
            facts |= {**stored, "figure_kind": self.entry.figure_kind, "listed_by": self.source}
            facts["load"] = f'flowzoo.load("{self.name}")' if self.entry.weights else None
        elif self.described is not None:
            facts |= self.described
        elif self.preset is not None:
            facts |= {
                "summary": self.preset.summary,
                "architecture": self.architecture_name,
                "config": self.config,
                "dataset": self.preset.dataset,
                "labels": self.preset.labels,
                "recipe": self.preset.recipe,
                "published": asdict(self.preset.published) if self.preset.published else None,
            }
        elif self.architecture is not None:
            facts |= {"summary": self.architecture.summary}
            facts["presets"] = {key: preset.summary for key, preset in self.architecture.presets.items()}
            facts["config_fields"] = [asdict(field) for field in _config_fields(self.architecture_name)]
        if self.preset is not None and self.preset.parameters is not None:
            facts["published_parameters"] = {
                "count": self.preset.parameters,
                "note": self.preset.parameters_note,
            }
        if self.create is not None:
            facts["create"] = self.create
        if plugin is not None:
            facts["plugin"] = {
                key: str(getattr(plugin, key))
                for key in ("distribution", "version", "state", "cause", "mend")
            }
        facts["papers"] = [asdict(citation) for citation in self.citations]
        return facts


def _external(name: str) -> _Subject | None:
    """A run, or weights that no manifest lists: what ``eval`` takes beside a model's name; None for any other name.

    Raises:
        FlowzooError: It is there and cannot be read.
    """
    path = Path(name.removeprefix("path:"))
    run, card = (os.path.lexists(path / file) for file in ("run.json", "flowzoo.json"))
    if not (run or card or name.startswith(("hf:", "path:"))):
        return None
    from flowzoo.evaluation.trained_model import check_unambiguous

    check_unambiguous(name, path)
    kind, described = ("run", _run_facts(path)) if run else ("exported model", _card_facts(name, card, path))
    architecture = str(described.get("architecture", ""))
    return _Subject(
        name=name,
        kind=kind,
        architecture=_usable(architecture),
        architecture_name=architecture if architecture in plugin_names() else "",
        config=described.get("config"),
        described=described,
    )


def _run_facts(path: Path) -> dict[str, Any]:
    from flowzoo.training.export import run_summary
    from flowzoo.training.run_dir import RunDir

    header = RunDir(path).header()
    facts = {key: header.get(key) for key in ("architecture", "config", "parameters", "started")}
    return facts | run_summary(path)


def _card_facts(name: str, here: bool, path: Path) -> dict[str, Any]:
    from flowzoo.weights.external import locate_unlisted, read_card

    card = read_card(path / "flowzoo.json") if here else locate_unlisted(name, hub_settings())[0]
    facts = asdict(card)
    return {"model": facts.pop("name"), **facts.pop("details"), **facts}


def _subject(name: str) -> _Subject:
    """Finds a model, else a preset, else an architecture of that name.

    Raises:
        UnknownModel: It is none of them; the message suggests names.
    """
    manifest = load_manifests()
    if name.partition("@")[0] in {*manifest.names(), *manifest.conflicts}:
        return _model(name, manifest)
    if name in plugin_names():
        return _Subject(
            name=name,
            kind="architecture",
            architecture=get_architecture(name),
            architecture_name=name,
            create=f'flowzoo.create("{name}", {_sizes(name)}, ...)',
        )
    try:
        architecture, preset, config = resolve(name, {})
    except UnknownModel:
        known = [*manifest.names(), *preset_names(), *plugin_names()]
        raise UnknownModel(
            f"{name!r} is no model, preset or architecture.{did_you_mean(name, known)} "
            "`flowzoo list`, `flowzoo list --presets` and `flowzoo list --architectures` show them all."
        ) from None
    return _Subject(
        name=name,
        kind="preset",
        architecture=architecture,
        architecture_name=architecture.name,
        preset=preset,
        config=config_to_dict(config),
        create=f'flowzoo.create("{name}")',
    )


def _model(name: str, manifest: Manifest) -> _Subject:
    """The model of that name, with its preset if the model is still the one that the preset describes.

    Raises:
        UnknownModel: It has no such version.
        ManifestError: Several manifests list it.
    """
    entry = manifest.get(name)
    try:
        architecture, preset, config = resolve(entry.name, {})
    except FlowzooError:  # the name is no preset's, or its plugin cannot be used
        preset, same = None, False
    else:
        same = config_hash(architecture.name, config_to_dict(config)) == entry.config_hash
    return _Subject(
        name=name,
        kind="model",
        architecture=_usable(entry.architecture),
        architecture_name=entry.architecture if entry.architecture in plugin_names() else "",
        preset=preset if same else None,
        entry=entry,
        config=entry.config,
        source=manifest.sources[entry.key],
        create=f'flowzoo.create("{name}")' if preset and name == entry.name else None,
    )


def _config_fields(architecture: str) -> list[ConfigField]:
    """The fields of an architecture's config.

    Raises:
        PluginError: Its class cannot be read.
    """
    try:
        return config_fields(config_class(architecture))
    except ForeignFailure as failure:
        plugin = get_plugin(architecture)
        raise PluginError(
            f"The config of {architecture!r} ({plugin.distribution} {plugin.version}) cannot be read: {failure}. "
            "Tell its authors."
        ) from failure.error


def _sizes(architecture: str) -> str:
    """How the size of the data is given to ``create``."""
    named = {field.name for field in _config_fields(architecture)}
    both = " or ".join(
        text for name, text in (("image_shape", "image_shape=(C, H, W)"), ("dims", "dims=D")) if name in named
    )
    return both or "image_shape=(C, H, W)"


def _show_config(found: list[dict[str, Any]]) -> None:
    """The fields of a config as a table."""
    rows = [
        (
            field["name"],
            field["type"],
            "required" if field["required"] else json.dumps(field["default"], ensure_ascii=False),
            field["meaning"].replace("``", ""),
        )
        for field in found
    ]
    table(("config", "type", "default", "meaning"), rows)


def _usable(name: str) -> Architecture | None:
    return get_plugin(name).architecture if name in plugin_names() else None


def _summary(subject: _Subject) -> str:
    """The stack of bijectors; imports torch, allocates nothing."""
    from flowzoo.factory import build_flow

    if subject.config is None:
        raise click.UsageError(
            f"{subject.name!r} is an architecture, and --stack needs a config: name a preset such as "
            f"{subject.name}-tiny."
        )
    architecture, _, config = resolve(subject.architecture_name, subject.config)
    return build_flow(architecture.name, config, device="meta").summary()


def _shown(details: dict[str, Any], citations: tuple[Citation, ...]) -> list[tuple[str, object]]:
    """The details as lines for people: nested values flattened, figures with their protocol."""
    shown: list[tuple[str, object]] = []
    for key, value in details.items():
        if value in _NOTHING or key == "papers":
            continue
        if key == "citations":
            shown.append((key, ", ".join(value)))
        else:
            shown.append((key.replace("_", " "), _lines(key, _short(value) if key == "training" else value)))
    papers = [f"{c.title} ({', '.join(c.authors)}; {c.place}) {c.url or ''}".strip() for c in citations]
    return [*shown, ("papers", "\n".join(papers) or None)]


def _short(training: Any) -> Any:
    """The account of a training without the recipes: files beside the weights, and JSON, have them."""
    if not isinstance(training, dict):
        return training
    whole = {name for name in ("recipe", "stages") if isinstance(training.get(name), dict | list)}
    return {name: item for name, item in training.items() if name not in whole}


def _lines(key: str, value: Any, *, inner: bool = False) -> str:
    """A value as text; a mapping becomes a line a key, and within another mapping one line."""
    if isinstance(value, dict):
        pairs = [
            (name, _lines(name, item, inner=True)) for name, item in value.items() if item not in _NOTHING
        ]
        if inner:
            return ", ".join(f"{name} {text}" for name, text in pairs)
        return "\n".join(f"{name}: {text}" for name, text in pairs)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if key in _COUNTS and isinstance(value, int):
        return f"{value:,}"
    return str(value)
