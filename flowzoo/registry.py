"""Discovery of architectures through entry points; every plugin has a state, none can break another.

Installing a distribution that declares an entry point in the group ``flowzoo.architectures`` is all it
takes to add an architecture. Whatever such a distribution does wrong ends as a row of
``flowzoo plugins``; only *using* a plugin that is not ``ok`` raises.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from flowzoo.admission import Rejected, load_architecture, mend_import
from flowzoo.api import Architecture
from flowzoo.errors import UnknownArchitecture, did_you_mean
from flowzoo.foreign import ForeignFailure, foreign_code, import_reference
from flowzoo.plugin import Plugin, PluginState

__all__ = [
    "DISABLE_VARIABLE",
    "GROUP",
    "Plugin",
    "PluginState",
    "builder",
    "config_class",
    "discover",
    "get_architecture",
    "get_plugin",
    "list_architectures",
    "plugin_names",
    "reset_registry",
]

GROUP = "flowzoo.architectures"
DISABLE_VARIABLE = "FLOWZOO_DISABLE_PLUGINS"

_found: dict[str, list[Plugin]] | None = None
_loaded: dict[str, Plugin] = {}


def reset_registry() -> None:
    """Forgets every plugin, so that the next question scans the environment again (for tests)."""
    global _found  # noqa: PLW0603 - the registry is the one piece of module state there is
    _found = None
    _loaded.clear()
    importlib.invalidate_caches()


def plugin_names() -> tuple[str, ...]:
    """Names in the entry-point group, sorted, usable or not. Loads no plugin."""
    return tuple(sorted(_scan()))


def discover() -> Mapping[str, Plugin]:
    """Every plugin by name, sorted, each with its state. Never raises for what a plugin does."""
    return MappingProxyType({name: get_plugin(name) for name in plugin_names()})


def list_architectures() -> list[str]:
    """Names of the architectures that can be used, sorted."""
    return [name for name, plugin in discover().items() if plugin.state is PluginState.OK]


def get_plugin(name: str) -> Plugin:
    """The plugin of this name in whatever state it is, loading no other.

    Raises:
        UnknownArchitecture: No installed distribution declares the name.
    """
    candidates = _scan().get(name)
    if candidates is None:
        installed = ", ".join(plugin_names()) or "none"
        raise UnknownArchitecture(
            f"No installed plugin provides the architecture {name!r}.{did_you_mean(name, plugin_names())} "
            f"Installed: {installed}. `flowzoo plugins` shows them all."
        )
    if name not in _loaded:
        _loaded[name] = _settle(candidates)
    return _loaded[name]


def get_architecture(name: str) -> Architecture:
    """The architecture of this name.

    Raises:
        UnknownArchitecture: No installed distribution declares the name.
        PluginError: The plugin is not ``ok``; the message says which distribution, why, and the mend.
    """
    plugin = get_plugin(name)
    if plugin.architecture is None:
        raise plugin.error()
    return plugin.architecture


def config_class(name: str) -> type[Any]:
    """The config dataclass of an architecture. Imports no torch.

    Raises:
        UnknownArchitecture: No installed distribution declares the name.
        PluginError: The plugin is not ``ok``.
    """
    found: type[Any] = import_reference(get_architecture(name).config)
    return found


def builder(name: str) -> Callable[[Any], Any]:
    """The function that builds an architecture's flow from its config. Imports the model's code.

    Raises:
        UnknownArchitecture: No installed distribution declares the name.
        PluginError: The plugin is not ``ok``, or the function cannot be imported.
    """
    reference, plugin = get_architecture(name).build, get_plugin(name)
    try:
        found = import_reference(reference)
    except ForeignFailure as failure:
        cause = f"its build function {reference} cannot be imported: {failure}"
        mend = mend_import(failure.error, plugin)
        raise replace(plugin, state=PluginState.BROKEN, cause=cause, mend=mend).error() from failure.error
    return found  # type: ignore[no-any-return]


def _scan() -> dict[str, list[Plugin]]:
    """Entry points by name as they are declared, before any is loaded."""
    global _found  # noqa: PLW0603 - the registry is the one piece of module state there is
    if _found is None:
        found: dict[str, list[Plugin]] = {}
        seen: set[str] = set()
        for distribution in importlib.metadata.distributions():
            for plugin in _declared(distribution, seen):
                found.setdefault(plugin.name, []).append(plugin)
        _found = found
    return _found


def _declared(distribution: importlib.metadata.Distribution, seen: set[str]) -> list[Plugin]:
    try:
        with foreign_code():
            if GROUP not in (distribution.read_text("entry_points.txt") or ""):
                return []
            owner, version = str(distribution.metadata["Name"]), str(distribution.version)
    except ForeignFailure:
        return []  # metadata that cannot be read declares nothing; pip itself refuses such a distribution
    if _normalized(owner) in seen:
        return []  # an older copy further down the path: Python imports the first one
    seen.add(_normalized(owner))

    def row(name: str, value: str, **judgement: Any) -> Plugin:
        return Plugin(
            name=name, distribution=owner, version=version, entry_point=value,
            **({"state": PluginState.OK} | judgement),
        )  # fmt: skip

    try:
        with foreign_code():
            entries = {(e.name, e.value) for e in distribution.entry_points if e.group == GROUP}
    except ForeignFailure as failure:
        plugin = row(_normalized(owner), "?")
        cause = f"its entry_points.txt cannot be read: {failure}"
        return [replace(plugin, state=PluginState.BROKEN, cause=cause, mend=plugin.reinstall)]
    return [row(name, value) for name, value in sorted(entries)]


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _settle(candidates: list[Plugin]) -> Plugin:
    """One verdict over everything that declares a name: disabled, conflict, or what loading it shows."""
    disabled = {item.strip() for item in os.environ.get(DISABLE_VARIABLE, "").split(",") if item.strip()}
    unwanted = {_normalized(item) for item in disabled}
    wanted = [p for p in candidates if p.name not in disabled and _normalized(p.distribution) not in unwanted]
    if not wanted:
        return replace(
            _merged(candidates),
            state=PluginState.DISABLED,
            cause=f"disabled by {DISABLE_VARIABLE}={os.environ[DISABLE_VARIABLE]}",
            mend=f"unset {DISABLE_VARIABLE}",
        )
    if len(wanted) > 1:
        both = " and ".join(f"{p.distribution} {p.version} ({p.entry_point})" for p in wanted)
        owners = sorted({p.distribution for p in wanted})
        uninstall = " or ".join(f"pip uninstall {owner}" for owner in owners)
        return replace(
            _merged(wanted),
            state=PluginState.CONFLICT,
            cause=f"the name is declared more than once: by {both}",
            mend=f"{uninstall} (or set {DISABLE_VARIABLE}={owners[-1]})",
        )
    [plugin] = wanted
    if plugin.state is not PluginState.OK:
        return plugin
    try:
        with foreign_code():
            return replace(plugin, architecture=load_architecture(plugin))
    except ForeignFailure as failure:
        error = failure.error
        if not isinstance(error, Rejected):  # merely looking at what the plugin brings failed
            error = Rejected(PluginState.BROKEN, str(failure), plugin.upgrade)
        return replace(plugin, state=error.state, cause=error.cause, mend=error.mend)


def _merged(plugins: list[Plugin]) -> Plugin:
    return replace(
        plugins[0],
        distribution=", ".join(p.distribution for p in plugins),
        version=", ".join(p.version for p in plugins),
        entry_point=", ".join(p.entry_point for p in plugins),
    )
