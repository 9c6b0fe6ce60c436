"""Discovery of architectures through entry points; every plugin has a state, none can break another.

Installing a distribution that declares an entry point in the group ``flowzoo.architectures`` is all it
takes to add an architecture. Whatever such a distribution does wrong ends as a row of
``flowzoo plugins``; only *using* a plugin that is not ``ok`` raises.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from flowzoo.api import Architecture
from flowzoo.errors import UnknownArchitecture, did_you_mean
from flowzoo.registry.isolation import ForeignFailure, import_reference
from flowzoo.registry.manifests import reset_manifests
from flowzoo.registry.plugin import Plugin, PluginState
from flowzoo.registry.rows import DISABLE_VARIABLE, judged, scan, settle
from flowzoo.registry.validation import check_code, load_architecture, mend_import

__all__ = [
    "DISABLE_VARIABLE",
    "GROUP",
    "Plugin",
    "PluginState",
    "absence",
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

_found: dict[str, list[Plugin]] | None = None
_surveyed: dict[str, Plugin] = {}
_loaded: dict[str, Plugin] = {}


def reset_registry() -> None:
    """Forgets every plugin, so that the next question scans the environment again (for tests)."""
    global _found  # noqa: PLW0603 - the registry is the one piece of module state there is
    _found = None
    _surveyed.clear()
    _loaded.clear()
    reset_manifests()
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
        _loaded[name] = judged(_survey(name), _with_code)
    return _loaded[name]


def absence(name: str) -> str | None:
    """Why an architecture is not here by somebody's choice, in a few words; None if it is here, sound or broken."""
    if name not in _scan():
        return "its plugin is not installed"
    return "its plugin is disabled" if _survey(name).state is PluginState.DISABLED else None


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
        _found = scan(GROUP, "architecture")
    return _found


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
        _surveyed[name] = settle(candidates, _with_architecture)
    return _surveyed[name]


def _with_architecture(plugin: Plugin) -> Plugin:
    return replace(plugin, architecture=load_architecture(plugin))


def _with_code(plugin: Plugin) -> Plugin:
    if plugin.architecture is not None:
        check_code(plugin.architecture, plugin)
    return plugin
