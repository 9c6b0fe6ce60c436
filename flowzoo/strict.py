"""JSON to frozen dataclasses, strictly, and the JSON Schema of the same dataclasses.

One set of type hints drives both, so the parser and the published schema cannot drift apart. Supported
hints: str, int, float, bool, Literal, ``X | None``, tuples, ``Mapping[str, X]``, Any (any finite JSON value)
and dataclasses of these; ``Annotated`` with a :class:`Rule` narrows them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from flowzoo.errors import ManifestError, did_you_mean

__all__ = ["Rule", "json_schema", "load_json", "read"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a value has to satisfy beyond its type.

    Attributes:
        words: The rule in words, for the error.
        pattern: Regular expression of the whole text.
        least: Smallest value allowed.
        above: Value that has to be exceeded.
    """

    words: str
    pattern: str | None = None
    least: float | None = None
    above: float | None = None

    def holds(self, value: Any) -> bool:
        """Whether a value of the right type satisfies it."""
        return (
            (self.pattern is None or re.fullmatch(self.pattern, value) is not None)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
        )

    def schema(self) -> dict[str, Any]:
        """The rule in JSON Schema's words."""
        found = {
            "pattern": None if self.pattern is None else f"^(?:{self.pattern})$",
            "minimum": self.least,
            "exclusiveMinimum": self.above,
            "description": self.words,
        }
        return {key: value for key, value in found.items() if value is not None}


def load_json(text: str, where: str) -> Any:
    """Parses JSON, refusing what JSON does not define: NaN, infinity, a key given twice.

    Raises:
        ManifestError: It is not such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ManifestError(f"{where}: nested too deeply to be a manifest.") from None
    except ValueError as error:
        raise ManifestError(f"{where}: not valid JSON: {error}.") from error


def read(hint: Any, value: Any, where: str, path: str = "$") -> Any:
    """Reads a JSON value as the type ``hint``.

    Args:
        hint: A type hint of the supported kind.
        value: What ``json`` made of the text.
        where: The file, for the error.
        path: JSON path of the value, for the error.

    Raises:
        ManifestError: It is something else; the message names file, path and what was expected.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        found = read(args[0], value, where, path)
        if not args[1].holds(found):
            raise _fault(where, path, value, args[1].words)
        return found
    if origin in (Union, types.UnionType):
        return None if value is None else read(_not_none(args), value, where, path)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in args):
            raise _fault(where, path, value, f"one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        return _read_tuple(args, value, where, path)
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(args[1], value, where, path)
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, value, where, path)
    return _read_scalar(hint, value, where, path)


def _read_scalar(hint: Any, value: Any, where: str, path: str) -> Any:
    if hint is Any:
        return _finite(value, where, path)
    if hint is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not hint:
        names = {str: "a text", int: "an integer", float: "a number", bool: "true or false"}
        raise _fault(where, path, value, names[hint])
    return _finite(value, where, path)


def _read_tuple(args: tuple[Any, ...], value: Any, where: str, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _fault(where, path, value, "a list")
    hints = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(hints) != len(value):
        raise _fault(where, path, value, f"a list of {len(hints)}")
    return tuple(read(h, v, where, f"{path}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))


def _read_mapping(hint: Any, value: Any, where: str, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _fault(where, path, value, "an object")
    return {key: read(hint, item, where, f"{path}.{key}") for key, item in value.items()}


def _read_dataclass(cls: Any, value: Any, where: str, path: str) -> Any:
    if not isinstance(value, dict):
        raise _fault(where, path, value, "an object")
    hints = typing.get_type_hints(cls, include_extras=True)
    for key in value:
        if key not in hints:
            known = ", ".join(hints)
            raise ManifestError(
                f"{where}: {path}: unknown key {key!r}.{did_you_mean(key, hints)} Known keys: {known}."
            )
    for key in _required(cls):
        if key not in value:
            raise ManifestError(f"{where}: {path}: the key {key!r} is missing; give it a value.")
    return cls(**{key: read(hints[key], item, where, f"{path}.{key}") for key, item in value.items()})


def _required(cls: Any) -> list[str]:
    return [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]


def _finite(value: Any, where: str, path: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise _fault(where, path, value, "a finite number")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _finite(item, where, f"{path}[{index}]")
    if isinstance(value, dict):
        for key, item in value.items():
            _finite(item, where, f"{path}.{key}")
    return value


def _fault(where: str, path: str, value: Any, expected: str) -> ManifestError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return ManifestError(f"{where}: {path} is {shown}; expected {expected}.")


def _not_none(args: tuple[Any, ...]) -> Any:
    [hint] = [arg for arg in args if arg is not type(None)]
    return hint


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def json_schema(hint: Any) -> dict[str, Any]:
    """The JSON Schema of what :func:`read` accepts for ``hint``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return {**json_schema(args[0]), **args[1].schema()}
    if origin in (Union, types.UnionType):
        return {"anyOf": [json_schema(_not_none(args)), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple:
        length = {} if args[-1] is Ellipsis else {"minItems": len(args), "maxItems": len(args)}
        return {"type": "array", "items": json_schema(args[0]), **length}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": json_schema(args[1])}
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        return {
            "type": "object",
            "properties": {key: json_schema(hints[key]) for key in hints},
            "required": _required(hint),
            "additionalProperties": False,
        }
    return {} if hint is Any else {"type": _SCALARS[hint]}
