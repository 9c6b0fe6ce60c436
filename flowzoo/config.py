"""Architecture configs: frozen dataclasses that survive a JSON round trip and refuse unknown keys."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from flowzoo.errors import ConfigError, FlowzooError, did_you_mean
from flowzoo.registry.isolation import ForeignFailure, foreign_code

T = TypeVar("T")

_EXTENSION = "flowzoo.extension"

EXTENSION: Mapping[str, Any] = types.MappingProxyType({_EXTENSION: True})
"""The metadata of a field that :func:`extension` gives a default."""

MAX_DIMS = 2**28
"""The most values of an image or a vector: 9,000 x 9,000 pixels of three colours."""


def extension(default: T) -> T:
    """A default for a field that a config gains after weights of its architecture are in the world.

    The field is in :func:`config_to_dict`, and so in the hash, only where it differs from the default: what was
    written before the field existed keeps its hash and its meaning. The default must be the old behaviour.

    Args:
        default: The field's default.
    """
    # dataclasses.field is typed as its default, too; the decorator sees a Field.
    return dataclasses.field(default=default, metadata=EXTENSION)


def parse_config(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """Builds the frozen dataclass ``cls`` from plain JSON values.

    Args:
        cls: A dataclass whose fields are bool, int, float, str, Literal, tuples of these, None-able
            or themselves such dataclasses.
        data: Field values; lists stand for tuples.
        where: What is being read, for the error message.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type; or the class refuses the values,
            in whatever way it does that.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ConfigError(
                f"{where}: unknown key {key!r}.{did_you_mean(key, fields)} Known keys: {', '.join(fields)}."
            )
    missing = [
        name
        for name, f in fields.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}; give a value for each.")
    values = {key: _coerce(hints[key], value, f"{where}: {key}") for key, value in data.items()}
    return _made(cls, values, where)


def _made(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """The dataclass of these values. Its own checks may be a plugin's code, and fail as that may."""
    try:
        with foreign_code():
            return cls(**values)
    except ForeignFailure as failure:
        if isinstance(failure.error, FlowzooError):
            raise failure.error from failure.error.__cause__
        error = failure.error
        cause = "it raises SystemExit" if isinstance(error, SystemExit) else str(failure)
        raise ConfigError(
            f"{where}: {cls.__module__}.{cls.__qualname__} refuses its values: {cause}"
        ) from failure.error


def data_shape(config: Any) -> tuple[int, ...]:
    """The shape of one item that a config's model is for: ``(C, H, W)`` of images, ``(D,)`` of vectors.

    Args:
        config: An architecture's config that :func:`check_data` accepts, or the mapping that it was read from.
    """
    keys = ("image_shape", "dims")
    shape, dims = (config.get(k) if isinstance(config, Mapping) else getattr(config, k, None) for k in keys)
    return tuple(shape) if shape is not None else () if dims is None else (dims,)


def check_data(config: Any, where: str) -> None:
    """Refuses a config whose data cannot exist, whatever its architecture checks.

    A config with an ``image_shape`` is for images, and has ``n_bits`` too; one without, or with None in its place,
    is for vectors and has ``dims``.

    Args:
        config: An architecture's config.
        where: What is being read, for the error message.

    Raises:
        ConfigError: A size is not positive or absurdly large, the bits are not 1 to 8, or there is no size at all.
    """
    shape, dims = getattr(config, "image_shape", None), getattr(config, "dims", None)
    if shape is not None:
        _check_images(shape, getattr(config, "n_bits", None), where)
    elif dims is None:
        raise ConfigError(
            f"{where}: neither image_shape nor dims is given; expected channels, height and width of images as "
            "image_shape, or the length of vectors as dims."
        )
    elif type(dims) is not int or not 1 <= dims <= MAX_DIMS:
        raise ConfigError(
            f"{where}: dims is {_shown(dims)}; expected the length of a vector, 1 to {MAX_DIMS:,}."
        )


def _check_images(shape: Any, n_bits: Any, where: str) -> None:
    if not isinstance(shape, tuple) or len(shape) != 3 or not all(type(size) is int for size in shape):
        raise ConfigError(f"{where}: image_shape is {_shown(shape)}; expected channels, height and width.")
    if min(shape) < 1 or math.prod(shape) > MAX_DIMS:
        raise ConfigError(
            f"{where}: image_shape is {_shown(shape)}; expected channels, height and width of at least 1, and at "
            f"most {MAX_DIMS:,} values in all."
        )
    if type(n_bits) is not int or not 1 <= n_bits <= 8:
        raise ConfigError(f"{where}: n_bits is {_shown(n_bits)}; expected 1 to 8.")


def config_to_dict(config: Any) -> dict[str, Any]:
    """Returns the fields of a config as JSON values (tuples become lists).

    All of them, but for an :func:`extension` at its default.
    """
    return {
        f.name: _plain(getattr(config, f.name))
        for f in dataclasses.fields(config)
        if not (f.metadata.get(_EXTENSION) and getattr(config, f.name) == f.default)
    }


def whole_config(config: Any) -> dict[str, Any]:
    """As :func:`config_to_dict`, with every :func:`extension` too: for people, who are to see what can be set."""
    return {
        f.name: whole_config(value) if dataclasses.is_dataclass(value) else _plain(value)
        for f in dataclasses.fields(config)
        if f.init
        for value in (getattr(config, f.name),)
    }


def config_hash(architecture: str, config: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of an architecture's name and its full config as canonical JSON."""
    import hashlib  # milliseconds that listing models does not need

    text = json.dumps([architecture, _plain(config)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_to_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(args, value, where)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        raise ConfigError(f"{where} is {_shown(value)}; choose one of {', '.join(map(repr, args))}.")
    if origin is tuple:
        return _coerce_tuple(args, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return parse_config(hint, value, where)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:
            raise ConfigError(f"{where} is {_shown(value)}; expected a finite number.")
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{where} is {_shown(value)} ({type(value).__name__}); expected {name}.")


def _coerce_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    failures: list[str] = []
    for arg in args:
        if arg is not type(None):
            try:
                return _coerce(arg, value, where)
            except ConfigError as error:
                failures.append(str(error))
    raise ConfigError(failures[0])


def _coerce_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} is {_shown(value)}; expected a list.")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_coerce(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(args) != len(value):
        raise ConfigError(f"{where} has {len(value)} items; expected {len(args)}.")
    return tuple(
        _coerce(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True))
    )


def _shown(value: Any) -> str:
    """A value as an error shows it: short, whatever it is."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or an integer of thousands of digits
        return f"a {type(value).__name__} too large to be shown"
    return text if len(text) <= 100 else f"{text[:97]}..."
