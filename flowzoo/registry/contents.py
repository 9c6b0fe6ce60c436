"""The contents of an Architecture: copied into plain objects once, so that nothing later runs a plugin's code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from flowzoo.api import INCOMPARABLE, SUPPORTED_API_VERSIONS, Architecture, Citation, Preset, Published

__all__ = ["NAME", "REFERENCE", "faults", "plain_copy"]

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_VERSIONS = ", ".join(map(str, SUPPORTED_API_VERSIONS))
_MAX_ITEMS, _MAX_TEXT, _MAX_NUMBER = 1_000, 10_000, 2**63

_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "int": ((int,), "an integer"),
    "float": ((int, float), "a number"),
    "str | None": ((str, type(None)), "a text or None"),
    "int | None": ((int, type(None)), "an integer or None"),
    "Published | None": ((Published, type(None)), "a flowzoo.api.Published or None"),
    "tuple[str, ...]": ((tuple,), "a tuple of texts"),
    "tuple[Incomparable, ...]": ((tuple,), "a tuple of codes of flowzoo.api.INCOMPARABLE"),
}
"""The types that the annotations in :mod:`flowzoo.api` stand for, and what to call them."""


def plain_copy(found: Architecture) -> Architecture:
    """A copy whose mappings are dictionaries, whatever the plugin made them of; nothing in it is judged."""
    values = {f.name: getattr(found, f.name) for f in dataclasses.fields(Architecture)}
    presets = values["presets"] = _dictionary(values["presets"])
    if isinstance(presets, dict):
        values["presets"] = {key: _plain_preset(preset) for key, preset in presets.items()}
    return Architecture(**values)


def _plain_preset(preset: Any) -> Any:
    if not isinstance(preset, Preset):
        return preset
    values = {f.name: getattr(preset, f.name) for f in dataclasses.fields(Preset)}
    return Preset(**values | {"config": _dictionary(values["config"])})


def _dictionary(mapping: Any) -> Any:
    """A mapping as a dictionary, one without end cut off; anything else as it is."""
    return dict(islice(mapping.items(), _MAX_ITEMS + 1)) if isinstance(mapping, Mapping) else mapping


def faults(found: Architecture, name: str) -> Iterator[str]:
    """Faults, in words, of an Architecture whose entry point has this name."""
    if type(found.api_version) is not int:
        yield f"api_version is {found.api_version!r}; it must be one of the integers {_VERSIONS}"
    yield from _kind_faults(found, "its Architecture")
    if found.name != name:
        yield f"the entry point is named {name!r} and its Architecture {found.name!r}; they must be equal"
    if not NAME.fullmatch(name):
        yield f"the name {name!r} is not made of lower-case letters, digits and single - or _"
    for key in ("config", "build"):
        if not REFERENCE.fullmatch(getattr(found, key)):
            yield f"{key} is {getattr(found, key)!r}; it must be of the form 'module:name'"
    yield from _preset_faults(found.presets)
    citations: Any = found.citations
    if not isinstance(citations, tuple) or not all(isinstance(c, Citation) for c in citations):
        yield "citations must be a tuple of flowzoo.api.Citation"
        return
    for citation in citations:
        yield from _kind_faults(citation, "a citation")


def _preset_faults(presets: Any) -> Iterator[str]:
    if not isinstance(presets, dict):
        yield f"presets is a {type(presets).__name__}; it must be a mapping with a preset 'tiny'"
        return
    if len(presets) > _MAX_ITEMS:
        yield f"it has more than {_MAX_ITEMS:,} presets"
    if "tiny" not in presets:
        yield "it has no preset 'tiny', which is mandatory (8x8 images or vectors, at most 50,000 parameters)"
    for key, preset in presets.items():
        if not isinstance(key, str) or not isinstance(preset, Preset):
            yield f"preset {key!r} is not a flowzoo.api.Preset"
            return
        if not key or len(key) > 64 or not key.isprintable():
            yield f"the preset's name {key!r} is not a short text"
        yield from _kind_faults(preset, f"preset {key!r}")
        if type(preset.labels) is int and preset.labels < 2:
            yield f"preset {key!r}: labels is {preset.labels}; expected a number of classes of at least 2, or None"
        if not isinstance(preset.config, dict) or not all(isinstance(name, str) for name in preset.config):
            yield f"preset {key!r}: config must be a mapping from the config's fields to their values"
        if preset.published is not None:
            yield from _published_faults(preset.published, f"preset {key!r}: published")


def _published_faults(published: Published, where: str) -> Iterator[str]:
    found = list(_kind_faults(published, where))
    yield from found
    unknown = [] if found else [code for code in published.incomparable if code not in INCOMPARABLE]
    if unknown:
        yield f"{where}: incomparable has {_shown(unknown[0])}; choose from {', '.join(INCOMPARABLE)}"


def _kind_faults(found: Any, where: str) -> Iterator[str]:
    """Faults, in words, in the types of the fields of one of the dataclasses of :mod:`flowzoo.api`."""
    for field in dataclasses.fields(found):
        kinds, words = _KINDS.get(str(field.type), ((), ""))
        value = getattr(found, field.name)
        # No subclass: it may have methods of its own.
        if kinds and (type(value) not in kinds or not all(type(item) is str for item in _items(value))):
            yield f"{where}: {field.name} is {_shown(value)}; it must be {words}"
        elif isinstance(value, int | float) and not abs(value) < _MAX_NUMBER:
            yield f"{where}: {field.name} is {_shown(value)}; expected a number below {_MAX_NUMBER:,}"
        for text in (value, *_items(value)):
            if isinstance(text, str) and len(text) > _MAX_TEXT:
                yield f"{where}: {field.name} has {len(text):,} characters; expected at most {_MAX_TEXT:,}"
            elif isinstance(text, str) and not " ".join(text.split()).isprintable():
                yield f"{where}: {field.name} is {_shown(text)}, which is not all printable"


def _items(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else ()


def _shown(value: Any) -> str:
    return f"{value!r:.80}"
