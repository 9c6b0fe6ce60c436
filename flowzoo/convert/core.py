"""From a checkpoint file to a directory that ``flowzoo.load("path:DIR")`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from flowzoo.atomic import sha256_file, write_text
from flowzoo.config import config_hash, config_to_dict, parse_config
from flowzoo.convert import LAYOUTS
from flowzoo.convert.layout import Converted, Layout, Options
from flowzoo.convert.source import read_source
from flowzoo.convert.tensors import Tensors
from flowzoo.errors import InputError, did_you_mean
from flowzoo.factory import build_flow
from flowzoo.registry import config_class
from flowzoo.weights.checkpoint import load_weights, save_weights
from flowzoo.weights.external import CARD_FILENAME, WEIGHTS_FILENAME

__all__ = ["Result", "convert_checkpoint", "convert_tensors", "find_layout"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A conversion that has been written.

    Attributes:
        layout: The layout that the checkpoint was read as.
        architecture: The architecture's name.
        config: Its config as JSON values.
        num_params: Number of parameters.
        path: The weights file.
        sha256: Its digest.
        size: Its length in bytes.
        notes: Assumptions and choices that the user should know of, a sentence or two each.
    """

    layout: str
    architecture: str
    config: Mapping[str, Any]
    num_params: int
    path: Path
    sha256: str
    size: int
    notes: tuple[str, ...] = ()


def convert_checkpoint(
    path: str | Path,
    out: str | Path,
    *,
    layout: str | None = None,
    name: str | None = None,
    state: str | None = None,
    **options: Any,
) -> Result:
    """Imports a checkpoint of another implementation.

    Args:
        path: A ``torch.save`` file with a state dict, or an ``.npz`` of variables.
        out: Directory to write, new or empty.
        layout: One of :data:`flowzoo.convert.LAYOUTS`; None to recognize it by the tensors' names.
        name: What to call the model; None for the directory's name.
        state: The name, in the file, of the state dict to take, where it holds several.
        **options: Fields of :class:`flowzoo.convert.layout.Options`.

    Returns:
        What was written. The model has been built from it and loaded once.

    Raises:
        InputError: The checkpoint is unreadable, of no known layout, incomplete, or needs an option.
        FlowzooError: The architecture's plugin is missing, or the disk refuses.
    """
    path, out = Path(path), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty directory; name another one with -o.")
    source = read_source(path, state)
    found = find_layout(source.tensors, layout)
    chosen = Options(**options)
    converted = convert_tensors(found, source.tensors, chosen)
    notes = (*source.notes, *found.notes(source.tensors, chosen))
    origin = {"layout": found.name, "filename": path.name, "sha256": sha256_file(path), "notes": list(notes)}
    return _write(converted, out, name or out.resolve().name, origin)


def find_layout(tensors: Mapping[str, Tensor], name: str | None) -> Layout:
    """The layout of this name, or the one that the tensors' names tell.

    Raises:
        InputError: There is none of this name; or the names fit no layout, or more than one.
    """
    known = {key.lower(): key for key in LAYOUTS}
    if name is not None:
        if name.lower() not in known:
            raise InputError(
                f"no layout is called {name!r}.{did_you_mean(name, LAYOUTS)} There are: {', '.join(LAYOUTS)}."
            )
        return _layout(known[name.lower()])
    layouts = [_layout(key) for key in LAYOUTS]
    fitting = [layout for layout in layouts if layout.recognizes(tensors)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InputError(
            f"the tensors' names fit {' and '.join(layout.name for layout in fitting)}; say which with --from."
        )
    looked = "".join(f"\n  {layout.name:<25} such as {layout.example}" for layout in layouts)
    raise InputError(
        f"the tensors' names fit no known layout; the first is {next(iter(tensors))!r}. Looked for:{looked}\n"
        "If it is one of them under changed names, rename the tensors; --from names a layout outright."
    )


def convert_tensors(layout: Layout, tensors: Mapping[str, Tensor], options: Options) -> Converted:
    """Converts a checkpoint's tensors.

    Raises:
        InputError: A tensor is missing, left over or of the wrong shape; or an option is needed or means nothing.
    """
    for option in fields(options):
        given = getattr(options, option.name) is not None
        if given and option.name != "image_shape" and option.name not in layout.options:
            raise InputError(
                f"--{option.name.replace('_', '-')} means nothing for a checkpoint of {layout.name}, whose code "
                "or tensors settle it; leave it out."
            )
    source = Tensors(layout.name, layout.prepare(tensors))
    converted = layout.convert(source, options)
    source.finish()
    return converted


def _layout(name: str) -> Layout:
    layout: Layout = import_module(LAYOUTS[name]).LAYOUT
    return layout


def _write(converted: Converted, out: Path, name: str, origin: Mapping[str, Any]) -> Result:
    parsed = parse_config(config_class(converted.architecture), converted.config, converted.architecture)
    config = config_to_dict(parsed)
    flow = build_flow(converted.architecture, parsed)
    facts = {
        "schema": 1,
        "name": name,
        "architecture": converted.architecture,
        "config": config,
        "config_hash": config_hash(converted.architecture, config),
        "num_params": sum(parameter.numel() for parameter in flow.parameters()),
        "converted": dict(origin),
    }
    path = out / WEIGHTS_FILENAME
    digest, size = save_weights(converted.state, path, facts)
    load_weights(flow, path)
    # The card comes last: without it the directory is no model.
    weights = {"filename": WEIGHTS_FILENAME, "sha256": digest, "size": size, "dtype": "float32"}
    write_text(out / CARD_FILENAME, json.dumps(facts | {"weights": weights}, indent=2) + "\n")
    return Result(
        layout=origin["layout"],
        architecture=converted.architecture,
        config=config,
        num_params=int(facts["num_params"]),  # type: ignore[call-overload]
        path=path,
        sha256=digest,
        size=size,
        notes=tuple(origin["notes"]),
    )
