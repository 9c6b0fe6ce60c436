"""JSON to frozen dataclasses, strictly, and the JSON Schema of the same dataclasses.

One set of type hints drives both, so the parser and the published schema cannot drift apart. Supported
hints: str, int, float, bool, Literal, ``X | None``, tuples, ``Mapping[str, X]``, Any (any finite JSON value)
and dataclasses of these; ``Annotated`` with a :class:`Rule` narrows them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union

from flowzoo.errors import ManifestError, did_you_mean

__all__ = ["Rule", "json_schema", "read"]

_Reader = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A condition on a value beyond its type.

    Attributes:
        words: The rule in words, for the error.
        pattern: Regular expression of the whole text.
        longest: Most characters of a text.
        least: Smallest value allowed.
        above: Value that has to be exceeded.
    """

    words: str
    pattern: str | None = None
    longest: int | None = None
    least: float | None = None
    above: float | None = None

    def holds(self, value: Any) -> bool:
        """True if a value of the right type satisfies it."""
        return (
            (self.longest is None or len(value) <= self.longest)
            and (self.pattern is None or re.fullmatch(self.pattern, value) is not None)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
        )

    def schema(self) -> dict[str, Any]:
        """The rule in JSON Schema's words."""
        found = {
            "pattern": None if self.pattern is None else f"^(?:{self.pattern})$",
            "maxLength": self.longest,
            "minimum": self.least,
            "exclusiveMinimum": self.above,
            "description": self.words,
        }
        return {key: value for key, value in found.items() if value is not None}


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
    try:
        return _reader(hint)(value)
    except _Fault as fault:
        raise ManifestError(f"{where}: {path}{fault.path}{fault.text}") from None


class _Fault(Exception):
    """A fault of a value; the path to it grows as the fault rises through what contains it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.path = ""

    def under(self, step: str) -> _Fault:
        """The same fault, seen from one level further out."""
        self.path = step + self.path
        return self


def _expected(words: str, value: Any) -> _Fault:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return _Fault(f" is {shown}; expected {words}.")


@functools.cache
def _reader(hint: Any) -> _Reader:
    """The function that reads a value as ``hint``: hints are taken apart once, however many values there are."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _ruled(_reader(args[0]), args[1])
    if origin in (Union, types.UnionType):
        inner = _reader(_not_none(args))
        return lambda value: None if value is None else inner(value)
    if origin is Literal:
        return _literal(args)
    if origin is tuple:
        return _tuple(args)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_reader(args[1]))
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint)
    return _READERS[hint]


def _ruled(inner: _Reader, rule: Rule) -> _Reader:
    def read_ruled(value: Any) -> Any:
        found = inner(value)
        if not rule.holds(found):
            raise _expected(rule.words, value)
        return found

    return read_ruled


def _literal(choices: tuple[Any, ...]) -> _Reader:
    def read_literal(value: Any) -> Any:
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise _expected(f"one of {', '.join(map(repr, choices))}", value)
        return value

    return read_literal


def _exactly(kind: type, words: str) -> _Reader:
    def read_exactly(value: Any) -> Any:
        if type(value) is not kind:
            raise _expected(words, value)
        return value

    return read_exactly


def _number(value: Any) -> Any:
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not float:
        raise _expected("a number", value)
    _finite(value)
    return value


def _tuple(args: tuple[Any, ...]) -> _Reader:
    endless = args[-1] is Ellipsis
    readers = [_reader(arg) for arg in args if arg is not Ellipsis]

    def read_tuple(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _expected("a list", value)
        each = readers * len(value) if endless else readers
        if len(each) != len(value):
            raise _expected(f"a list of {len(each)}", value)
        return tuple(
            _inside(reader, item, f"[{i}]") for i, (reader, item) in enumerate(zip(each, value, strict=True))
        )

    return read_tuple


def _mapping(reader: _Reader) -> _Reader:
    def read_mapping(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _expected("an object", value)
        return {key: _inside(reader, item, f".{key}") for key, item in value.items()}

    return read_mapping


def _dataclass(cls: Any) -> _Reader:
    readers = {key: _reader(hint) for key, hint in typing.get_type_hints(cls, include_extras=True).items()}
    required = _required(cls)

    def read_dataclass(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _expected("an object", value)
        for key in value:
            if key not in readers:
                known = ", ".join(readers)
                raise _Fault(f": unknown key {key!r}.{did_you_mean(key, readers)} Known keys: {known}.")
        for key in required:
            if key not in value:
                raise _Fault(f": the key {key!r} is missing; give it a value.")
        return cls(**{key: _inside(readers[key], item, f".{key}") for key, item in value.items()})

    return read_dataclass


def _inside(reader: _Reader, value: Any, step: str) -> Any:
    """Reads a part; a fault in it says on its way out where the part is."""
    try:
        return reader(value)
    except _Fault as fault:
        raise fault.under(step) from None


def _finite(value: Any) -> Any:
    """Any JSON value, unless a number in it is too large for a float."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _expected("a finite number", value)
    if isinstance(value, list):
        for index, item in enumerate(value):
            _inside(_finite, item, f"[{index}]")
    if isinstance(value, dict):
        for key, item in value.items():
            _inside(_finite, item, f".{key}")
    return value


_READERS: Mapping[Any, _Reader] = {
    Any: _finite,
    str: _exactly(str, "a text"),
    int: _exactly(int, "an integer"),
    float: _number,
    bool: _exactly(bool, "true or false"),
}


def _required(cls: Any) -> list[str]:
    return [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]


def _not_none(args: tuple[Any, ...]) -> Any:
    [hint] = [arg for arg in args if arg is not type(None)]
    return hint


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
