"""Discovery of architectures through entry points; every plugin has a state, none can break another.

Installing a distribution that declares an entry point in the group ``flowzoo.architectures`` is all it
takes to add an architecture. Whatever such a distribution does wrong ends as a row of
``flowzoo plugins``; only *using* a plugin that is not ``ok`` raises.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from flowzoo.api import Architecture
from flowzoo.errors import UnknownArchitecture, did_you_mean
from flowzoo.registry.entry_points import Declaration, declarations
from flowzoo.registry.isolation import ForeignFailure, bounded, import_reference, shortened
from flowzoo.registry.plugin import Plugin, PluginState
from flowzoo.registry.validation import Rejected, check_code, load_architecture, mend_import

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
    "survey",
]

GROUP = "flowzoo.architectures"
_MAX_NAME, _MAX_VALUE, _MAX_ENTRIES = 64, 200, 100
DISABLE_VARIABLE = "FLOWZOO_DISABLE_PLUGINS"

_found: dict[str, list[Plugin]] | None = None
_surveyed: dict[str, Plugin] = {}
_loaded: dict[str, Plugin] = {}


def reset_registry() -> None:
    """Forgets every plugin, so that the next question scans the environment again (for tests)."""
    global _found  # noqa: PLW0603 - the registry is the one piece of module state there is
    _found = None
    _surveyed.clear()
    _loaded.clear()
    importlib.invalidate_caches()


def plugin_names() -> tuple[str, ...]:
    """Names in the entry-point group, sorted, usable or not. Loads no plugin."""
    return tuple(sorted(_scan()))


def discover() -> Mapping[str, Plugin]:
    """Every plugin by name, sorted, each with its state. Never raises for what a plugin does."""
    return MappingProxyType({name: get_plugin(name) for name in plugin_names()})


def survey() -> Mapping[str, Plugin]:
    """Every plugin by name, sorted, as its metadata shows it: :func:`discover` before any config is imported.

    What lists models needs no more. A plugin that is ``ok`` here may still turn out to be broken.
    """
    return MappingProxyType({name: _survey(name) for name in plugin_names()})


def list_architectures() -> list[str]:
    """Names of the architectures that can be used, sorted."""
    return [name for name, plugin in discover().items() if plugin.state is PluginState.OK]


def get_plugin(name: str) -> Plugin:
    """The plugin of this name in whatever state it is, loading no other.

    Raises:
        UnknownArchitecture: No installed distribution declares the name.
    """
    if name not in _loaded:
        _loaded[name] = _judged(_survey(name), _with_code)
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
        for declaration in declarations(GROUP):
            owner = _normalized(declaration.distribution)
            if owner in seen:
                continue  # an older copy further down the path: Python imports the first one
            seen.add(owner)
            for plugin in _declared(declaration):
                found.setdefault(plugin.name, []).append(plugin)
        _found = found
    return _found


def _declared(declaration: Declaration) -> list[Plugin]:
    """A row for each entry point of a distribution; one in its own name, in brackets, if they cannot be read."""

    def row(name: str, value: str) -> Plugin:
        return Plugin(
            name=shortened(name, _MAX_NAME),
            state=PluginState.OK,
            distribution=declaration.distribution,
            version=declaration.version,
            entry_point=shortened(value, _MAX_VALUE),
        )

    fault = declaration.fault and f"its entry_points.txt cannot be read: {declaration.fault}"
    if len(declaration.entries) > _MAX_ENTRIES:
        fault = f"it declares {len(declaration.entries):,} architectures; expected at most {_MAX_ENTRIES}"
    if fault:
        # No architecture has such a name, so that a distribution called glow does not contest glow's.
        plugin = row(f"({_normalized(declaration.distribution)})", "?")
        return [replace(plugin, state=PluginState.BROKEN, cause=fault, mend=plugin.reinstall)]
    return [_named(row(name, value), name) for name, value in declaration.entries]


def _named(plugin: Plugin, name: str) -> Plugin:
    """The plugin, or what is wrong with a name that no line of a table can hold."""
    if plugin.name == name:
        return plugin
    cause = f"its name has {len(name)} characters; expected at most {_MAX_NAME}, letters and digits"
    return replace(plugin, state=PluginState.BROKEN, cause=cause, mend=plugin.upgrade)


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _survey(name: str) -> Plugin:
    """The plugin of this name as its metadata shows it. Raises what :func:`get_plugin` raises."""
    candidates = _scan().get(name)
    if candidates is None:
        installed = ", ".join(plugin_names()) or "none"
        raise UnknownArchitecture(
            f"No installed plugin provides the architecture {name!r}.{did_you_mean(name, plugin_names())} "
            f"Installed: {installed}. `flowzoo plugins` shows them all."
        )
    if name not in _surveyed:
        _surveyed[name] = _settle(candidates)
    return _surveyed[name]


def _settle(candidates: list[Plugin]) -> Plugin:
    """One verdict over everything that declares a name: disabled, conflict, or what its metadata shows."""
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
    return _judged(plugin, _with_architecture)


def _judged(plugin: Plugin, judge: Callable[[Plugin], Plugin]) -> Plugin:
    """The verdict of a judge on a plugin that is ``ok`` so far."""
    if plugin.state is not PluginState.OK:
        return plugin
    try:
        return bounded(lambda: judge(plugin))
    except ForeignFailure as failure:
        error = failure.error
        if not isinstance(error, Rejected):  # merely looking at what the plugin brings failed
            error = Rejected(PluginState.BROKEN, str(failure), plugin.upgrade)
        return replace(plugin, state=error.state, cause=error.cause, mend=error.mend, architecture=None)


def _with_architecture(plugin: Plugin) -> Plugin:
    return replace(plugin, architecture=load_architecture(plugin))


def _with_code(plugin: Plugin) -> Plugin:
    if plugin.architecture is not None:
        check_code(plugin.architecture, plugin)
    return plugin


def _merged(plugins: list[Plugin]) -> Plugin:
    return replace(
        plugins[0],
        distribution=", ".join(p.distribution for p in plugins),
        version=", ".join(p.version for p in plugins),
        entry_point=", ".join(p.entry_point for p in plugins),
    )
