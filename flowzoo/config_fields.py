"""The fields of a config class as a table: name, type, default and meaning. Imports no torch."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union

from flowzoo.config import config_to_dict
from flowzoo.registry.isolation import foreign_code

__all__ = ["ConfigField", "config_fields", "meanings"]

_SECTION = re.compile(r"[A-Z]\w*( \w+)?:")
_ENTRY = re.compile(r"(\w+)(?: \([^)]*\))?: *(.*)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConfigField:
    """One field of a config.

    Attributes:
        name: Its name; that of a field of a config inside the config is ``outer.inner``.
        type: Its type as one writes it, such as ``tuple[int, int, int]``.
        required: Whether it has to be given.
        default: Its default as a JSON value; None for a required field.
        meaning: What the class's docstring says of it; empty if it says nothing.
    """

    name: str
    type: str
    required: bool
    default: Any
    meaning: str


def config_fields(cls: type[Any]) -> list[ConfigField]:
    """The fields of a config class, in its order; a config inside it is followed by its own.

    Args:
        cls: A dataclass as :func:`flowzoo.config.parse_config` takes it.

    Raises:
        ForeignFailure: The plugin's annotations cannot be read, or a default cannot be made.
    """
    with foreign_code():
        return list(_fields(cls, ""))


def _fields(cls: type[Any], prefix: str) -> Iterator[ConfigField]:
    hints, said = typing.get_type_hints(cls), meanings(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        hint, made = hints[field.name], field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        required = default is dataclasses.MISSING
        yield ConfigField(
            name=f"{prefix}{field.name}",
            type=_spelled(hint),
            required=required,
            default=None if required else _json(default),
            meaning=said.get(field.name, ""),
        )
        for inner in _configs_in(hint):
            yield from _fields(inner, f"{prefix}{field.name}.")


def meanings(cls: type[Any]) -> dict[str, str]:
    """The entries of the section ``Attributes`` of a class's docstring (Google style), by name, each on one line."""
    found: dict[str, str] = {}
    name, inside = "", False
    for line in (inspect.getdoc(cls) or "").splitlines():
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if indent == 0 and text:
            inside = text in ("Attributes:", "Args:") if _SECTION.fullmatch(text) else False
        elif inside and text:
            entry = _ENTRY.fullmatch(text) if indent <= 4 else None
            name = entry[1] if entry else name
            found[name] = entry[2] if entry else f"{found.get(name, '')} {text}".strip()
    found.pop("", None)
    return found


def _json(value: Any) -> Any:
    """A default as a JSON value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_to_dict(value)
    return [_json(item) for item in value] if isinstance(value, tuple | list) else value


def _configs_in(hint: Any) -> list[type[Any]]:
    """The config classes that a field's type is, or may be; not those that a tuple repeats."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [inner for arg in typing.get_args(hint) for inner in _configs_in(arg)]
    return [hint] if isinstance(hint, type) and dataclasses.is_dataclass(hint) else []


def _spelled(hint: Any) -> str:
    """A type as one writes it in a config class; the choices of a Literal are joined by ``|``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " | ".join(map(_spelled, args))
    if origin is Literal:
        return " | ".join(map(repr, args))
    if origin is not None:
        inside = ", ".join("..." if arg is Ellipsis else _spelled(arg) for arg in args)
        return f"{origin.__name__}[{inside}]"
    if hint is type(None):
        return "None"
    return str(getattr(hint, "__name__", hint))
