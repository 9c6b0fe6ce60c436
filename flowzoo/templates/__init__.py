"""Plugins to begin with: packages that install, pass their checks and work before a line of them is edited.

A file that ends in ``.tmpl`` is a :class:`string.Template`; the folder ``package`` becomes the package.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Literal

from flowzoo import __version__
from flowzoo.directories import replaced_directory
from flowzoo.errors import InputError
from flowzoo.registry import plugin_names
from flowzoo.registry.contents import NAME

__all__ = ["PluginKind", "new_plugin", "rendered"]

PluginKind = Literal["architecture", "dataset"]

_SUFFIX = ".tmpl"
_LONGEST = 64


def new_plugin(
    name: str, directory: str | os.PathLike[str] | None = None, *, kind: PluginKind = "architecture"
) -> Path:
    """Writes a new plugin. It appears as a whole or not at all.

    Args:
        name: Name of the architecture or data set: lower-case letters and digits, with single - or _ between them.
        directory: Where to write, missing or empty; None for ``flowzoo-NAME`` here.
        kind: What the plugin brings.

    Returns:
        The directory.

    Raises:
        InputError: The name cannot be one or is taken, or the directory holds something.
    """
    _check(name, kind)
    target = Path(directory) if directory is not None else Path(f"flowzoo-{name}")
    with replaced_directory(target, lambda _: False, "a directory that is missing") as new:
        for path, text in rendered(name, kind).items():
            place = new / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
    return target


def rendered(name: str, kind: PluginKind) -> Mapping[str, str]:
    """The files of a plugin, by path."""
    words = name.replace("_", "-").split("-")
    package = f"flowzoo_{'_'.join(words)}"
    year = time.gmtime().tm_year
    values = {
        "name": name,
        "distribution": f"flowzoo-{'-'.join(words)}",
        "package": package,
        "config_class": f"{''.join(word.capitalize() for word in words)}Config",
        "version": __version__,
        "year": str(year),
        "cite_key": f"author{year}{''.join(words)}",
    }
    found = {}
    for path, source in _files(files("flowzoo") / "templates" / kind, ""):
        text = source.read_text("utf-8")
        place = path.removesuffix(_SUFFIX).replace("package/", f"{package}/", 1)
        found[place] = Template(text).substitute(values) if path.endswith(_SUFFIX) else text
    return dict(sorted(found.items()))


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for child in folder.iterdir():
        if child.is_dir():
            yield from _files(child, f"{prefix}{child.name}/")
        else:
            yield f"{prefix}{child.name}", child


def _check(name: str, kind: PluginKind) -> None:
    """Refuses a name that cannot be one, or is taken."""
    if not NAME.fullmatch(name) or len(name) > _LONGEST:
        raise InputError(
            f"{name!r} cannot be the name of a plugin; expected at most {_LONGEST} lower-case letters and digits, "
            "beginning with a letter, with single - or _ between them, such as 'spline-flow'."
        )
    taken = _owner(name, kind)
    if taken:
        raise InputError(f"The name {name!r} is taken by {taken}; choose another.")


def _owner(name: str, kind: PluginKind) -> str:
    """The thing that has the name already, in words; empty if nothing has."""
    if kind == "dataset":
        from flowzoo.data.registry import discover_datasets

        return (
            f"the data set {name!r}, {discover_datasets()[name].origin}"
            if name in discover_datasets()
            else ""
        )
    from flowzoo.factory import preset_names
    from flowzoo.registry import get_plugin

    if name in plugin_names():
        plugin = get_plugin(name)
        return f"the architecture of {plugin.distribution} {plugin.version}"
    return f"the preset {name!r}" if name in preset_names() else ""
