"""The rows of a group of entry points: what is declared, and one verdict for each name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace

from flowzoo.registry.entry_points import Declaration, declarations
from flowzoo.registry.isolation import ForeignFailure, bounded, shortened
from flowzoo.registry.plugin import Kind, Plugin, PluginState
from flowzoo.registry.validation import Rejected

__all__ = ["DISABLE_VARIABLE", "judged", "scan", "settle"]

_MAX_NAME, _MAX_VALUE, _MAX_ENTRIES = 64, 200, 100
DISABLE_VARIABLE = "FLOWZOO_DISABLE_PLUGINS"


def scan(group: str, kind: Kind) -> dict[str, list[Plugin]]:
    """Entry points of a group by name as they are declared, before any is loaded."""
    found: dict[str, list[Plugin]] = {}
    seen: set[str] = set()
    for declaration in declarations(group):
        owner = _normalized(declaration.distribution)
        if owner in seen:
            continue  # an older copy further down the path: Python imports the first one
        seen.add(owner)
        for plugin in _declared(declaration, kind):
            found.setdefault(plugin.name, []).append(plugin)
    return found


def settle(candidates: list[Plugin], judge: Callable[[Plugin], Plugin]) -> Plugin:
    """One verdict over everything that declares a name: disabled, conflict, or what a judge says."""
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
    return judged(plugin, judge)


def judged(plugin: Plugin, judge: Callable[[Plugin], Plugin]) -> Plugin:
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


def _declared(declaration: Declaration, kind: Kind) -> list[Plugin]:
    """A row for each entry point of a distribution; one in its own name, in brackets, if they cannot be read."""

    def row(name: str, value: str) -> Plugin:
        return Plugin(
            name=shortened(name, _MAX_NAME),
            kind=kind,
            state=PluginState.OK,
            distribution=declaration.distribution,
            version=declaration.version,
            entry_point=shortened(value, _MAX_VALUE),
        )

    if declaration.fault and kind != "architecture":
        return []  # the same file for every group: it is told once
    fault = declaration.fault and f"its entry_points.txt cannot be read: {declaration.fault}"
    if len(declaration.entries) > _MAX_ENTRIES:
        fault = f"it declares {len(declaration.entries):,} {kind}s; expected at most {_MAX_ENTRIES}"
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


def _merged(plugins: list[Plugin]) -> Plugin:
    return replace(
        plugins[0],
        distribution=", ".join(p.distribution for p in plugins),
        version=", ".join(p.version for p in plugins),
        entry_point=", ".join(p.entry_point for p in plugins),
    )
