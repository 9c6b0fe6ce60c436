"""Distributions that bring nothing but weights: manifests for architectures that others provide.

The entry-point group is ``flowzoo.manifests``. An entry's value is ``"package:file.json"``, a file inside an installed
package, found without running any of its code; or ``"module:ATTRIBUTE"``, where the attribute is such a text or a path.
The weights lie in the folder ``weights`` beside the manifest, or beside it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import replace

from flowzoo.registry.contents import REFERENCE
from flowzoo.registry.isolation import ForeignFailure, foreign_code, import_reference, shortened
from flowzoo.registry.plugin import Plugin, PluginState
from flowzoo.registry.rows import scan, settle
from flowzoo.registry.validation import Rejected, mend_import

__all__ = ["GROUP", "has_manifests", "manifest_path", "manifest_rows", "reset_manifests"]

GROUP = "flowzoo.manifests"


@functools.cache
def manifest_rows() -> tuple[Plugin, ...]:
    """Every entry of the group, by name, with its state; none is read yet."""
    return tuple(settle(found, _with_manifest) for _, found in sorted(_scan().items()))


def has_manifests() -> bool:
    """Whether an installed distribution declares such an entry; looks at nothing else."""
    return bool(_scan())


def reset_manifests() -> None:
    """Forgets what was found."""
    _scan.cache_clear()
    manifest_rows.cache_clear()


def manifest_path(reference: str) -> str | None:
    """The path of ``"package:file"``, or None if no such package lies in a directory, or the file is not in it.

    Imports the parents of a dotted package, and never the package itself.
    """
    package, _, filename = reference.partition(":")
    with foreign_code():
        spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = os.path.join(folder, filename)
        if os.path.isfile(path):
            return path
    return None


@functools.cache
def _scan() -> dict[str, list[Plugin]]:
    return scan(GROUP, "manifest")


def _with_manifest(plugin: Plugin) -> Plugin:
    """The plugin with the manifest that its entry point names.

    Raises:
        Rejected: There is none.
    """
    value = plugin.entry_point
    if ":" not in value:
        cause = (
            f"the entry point's value {value!r} is not of the form 'package:file.json' or 'module:ATTRIBUTE'"
        )
        raise Rejected(PluginState.BROKEN, cause, plugin.upgrade)
    try:
        reference = value if manifest_path(value) else _named_by(value)
        found = manifest_path(reference) if ":" in reference else reference
    except ForeignFailure as failure:
        mend = mend_import(failure.error, plugin)
        raise Rejected(PluginState.BROKEN, str(failure), mend) from failure
    if found is None or not os.path.isfile(found):
        cause = f"its manifest {shortened(reference, 200)} is not there"
        raise Rejected(PluginState.BROKEN, cause, plugin.reinstall)
    return replace(plugin, manifest=os.path.abspath(found))


def _named_by(value: str) -> str:
    """What the attribute ``"module:ATTRIBUTE"`` says, or the value itself if it is the name of a file.

    Raises:
        ForeignFailure: There is no such attribute, or it is no reference.
    """
    # A file's name with a dot looks like an attribute of an attribute.
    if not REFERENCE.fullmatch(value) or value.endswith(".json"):
        return value
    found = import_reference(value)
    if isinstance(found, str | os.PathLike):
        return str(os.fspath(found))
    raise ForeignFailure(
        TypeError(value),
        f"{value} is a {type(found).__name__}; expected a text 'package:file.json' or the path of a manifest",
    )
