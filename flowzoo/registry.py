"""Discovery of architectures through entry points; every plugin has a state, none can break another.

Installing a distribution that declares an entry point in the group ``flowzoo.architectures`` is all it
takes to add an architecture. Whatever such a distribution does wrong ends as a row of
``flowzoo plugins``; only *using* a plugin that is not ``ok`` raises.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from flowzoo.api import API_VERSION, Architecture, Citation, Preset
from flowzoo.errors import PluginError, UnknownArchitecture, did_you_mean
from flowzoo.foreign import ForeignFailure, foreign_code, import_reference

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

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class PluginState(StrEnum):
    """What can be said of an installed plugin."""

    OK = "ok"
    BROKEN = "broken"
    INCOMPATIBLE = "incompatible"
    CONFLICT = "conflict"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One name in the entry-point group, and what became of it.

    Attributes:
        name: The entry point's name, which is the architecture's name.
        state: Whether it can be used.
        distribution: The distribution that declares it (several, comma-separated, in a conflict).
        version: That distribution's version.
        entry_point: The entry point's value, ``"module:attribute"``.
        cause: Why it is not ``ok``; empty if it is.
        mend: The command that mends it; empty if nothing needs mending.
        architecture: What the entry point resolves to, if the plugin is ``ok``.
    """

    name: str
    state: PluginState
    distribution: str
    version: str
    entry_point: str
    cause: str = ""
    mend: str = ""
    architecture: Architecture | None = None

    def error(self) -> PluginError:
        """The error that using this plugin raises."""
        return PluginError(
            f"Architecture {self.name!r} cannot be used: its plugin is {self.state}.\n"
            f"  entry point:  {self.name} = {self.entry_point}\n"
            f"  distribution: {self.distribution} {self.version}\n"
            f"  cause:        {self.cause}\n"
            f"  to mend it:   {self.mend}"
        )


class _Rejected(Exception):
    """Loading a plugin failed; the arguments are its state, the cause and the mending command."""

    def __init__(self, state: PluginState, cause: str, mend: str) -> None:
        super().__init__(cause)
        self.state, self.cause, self.mend = state, cause, mend


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
        PluginError: The plugin is not ``ok``, or has no such dataclass.
    """
    found = _resolve(name, get_architecture(name).config, "its config class")
    if not isinstance(found, type) or not hasattr(found, "__dataclass_fields__"):
        raise _unusable(name, f"its config class {get_architecture(name).config} is not a dataclass").error()
    return found


def builder(name: str) -> Callable[[Any], Any]:
    """The function that builds an architecture's flow from its config. Imports the model's code.

    Raises:
        UnknownArchitecture: No installed distribution declares the name.
        PluginError: The plugin is not ``ok``, or the function cannot be imported.
    """
    found = _resolve(name, get_architecture(name).build, "its build function")
    if not callable(found):
        raise _unusable(name, f"its build function {get_architecture(name).build} cannot be called").error()
    return found  # type: ignore[no-any-return]


def _resolve(name: str, reference: str, what: str) -> Any:
    plugin = get_plugin(name)
    try:
        return import_reference(reference)
    except ForeignFailure as failure:
        cause = f"{what} {reference} cannot be imported: {failure}"
        raise _unusable(name, cause, _mendimport_reference(failure.error, plugin)).error() from failure.error


def _unusable(name: str, cause: str, mend: str | None = None) -> Plugin:
    plugin = get_plugin(name)
    return replace(plugin, state=PluginState.BROKEN, cause=cause, mend=mend or _upgrade(plugin))


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
        return [replace(plugin, state=PluginState.BROKEN, cause=cause, mend=_reinstall(plugin))]
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
        return replace(plugin, architecture=_load(plugin))
    except _Rejected as rejected:
        return replace(plugin, state=rejected.state, cause=rejected.cause, mend=rejected.mend)


def _merged(plugins: list[Plugin]) -> Plugin:
    return replace(
        plugins[0],
        distribution=", ".join(p.distribution for p in plugins),
        version=", ".join(p.version for p in plugins),
        entry_point=", ".join(p.entry_point for p in plugins),
    )


def _load(plugin: Plugin) -> Architecture:
    if not _REFERENCE.fullmatch(plugin.entry_point):
        cause = f"the entry point's value {plugin.entry_point!r} is not of the form 'module:ATTRIBUTE'"
        raise _Rejected(PluginState.BROKEN, cause, _upgrade(plugin))
    try:
        found = import_reference(plugin.entry_point)
    except ForeignFailure as failure:
        declared = _declared_api_version(plugin.entry_point)
        if declared is not None and declared != API_VERSION:
            raise _version_mismatch(declared, plugin) from failure
        mend = _mendimport_reference(failure.error, plugin)
        raise _Rejected(PluginState.BROKEN, str(failure), mend) from failure
    _judge(found, plugin)
    return found  # type: ignore[no-any-return]


def _judge(found: Any, plugin: Plugin) -> None:
    """Raises :class:`_Rejected` unless ``found`` is an Architecture that this core can use."""
    version = getattr(found, "api_version", None)
    if type(version) is int and version != API_VERSION:
        raise _version_mismatch(version, plugin)
    for fault in _faults(found, plugin.name):
        raise _Rejected(PluginState.BROKEN, fault, _upgrade(plugin))


def _faults(found: Any, name: str) -> Iterator[str]:
    if not isinstance(found, Architecture):
        kind = type(found)
        yield f"the entry point is a {kind.__module__}.{kind.__qualname__}, not a flowzoo.api.Architecture"
        return
    fields: dict[str, Any] = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    if type(fields["api_version"]) is not int:
        yield f"api_version is {fields['api_version']!r}; it must be the integer {API_VERSION}"
    if fields["name"] != name:
        yield f"the entry point is named {name!r} and its Architecture {fields['name']!r}; they must be equal"
    if not _NAME.fullmatch(name):
        yield f"the name {name!r} is not made of lower-case letters, digits and single - or _"
    for key in ("config", "build"):
        if not isinstance(fields[key], str) or not _REFERENCE.fullmatch(fields[key]):
            yield f"{key} is {fields[key]!r}; it must be of the form 'module:name'"
    yield from _preset_faults(fields["presets"])
    citations = fields["citations"]
    if not isinstance(citations, tuple) or not all(isinstance(c, Citation) for c in citations):
        yield "citations must be a tuple of flowzoo.api.Citation"


def _preset_faults(presets: Any) -> Iterator[str]:
    if not isinstance(presets, Mapping) or "tiny" not in presets:
        yield "it has no preset 'tiny', which is mandatory (8x8 images, at most 50,000 parameters)"
        return
    for key, preset in presets.items():
        if not isinstance(key, str) or not isinstance(preset, Preset):
            yield f"preset {key!r} is not a flowzoo.api.Preset"


def _version_mismatch(declared: int, plugin: Plugin) -> _Rejected:
    cause = f"it was written for plugin API {declared}; this flowzoo speaks {API_VERSION}"
    mend = "pip install --upgrade flowzoo" if declared > API_VERSION else _upgrade(plugin)
    return _Rejected(PluginState.INCOMPATIBLE, cause, mend)


def _declared_api_version(entry_point: str) -> int | None:
    """The literal ``api_version`` in a module's source that could not be imported.

    A plugin for a newer core may use names that this core lacks, and then fails on import with an
    ImportError or TypeError; its literal still tells that it is the core that is too old.
    """
    import ast
    import importlib.util

    try:
        with foreign_code():
            spec = importlib.util.find_spec(entry_point.partition(":")[0])
            source = spec.loader.get_source(spec.name)  # type: ignore[union-attr]
            tree = ast.parse(source)
    except ForeignFailure:
        return None
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "api_version"
            and isinstance(node.value, ast.Constant)
        ):
            return node.value.value if type(node.value.value) is int else None
    return None


def _mendimport_reference(error: BaseException, plugin: Plugin) -> str:
    """The command for a failed import: files that are gone are restored, anything else is upgraded.

    Upgrading also installs declared dependencies that are missing. The missing module's name is no
    distribution's name, so no command is made of it.
    """
    own = plugin.entry_point.split(":")[0].split(".")[0]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == own:
        return _reinstall(plugin)
    return _upgrade(plugin)


def _upgrade(plugin: Plugin) -> str:
    return f"pip install --upgrade {plugin.distribution} (or: pip uninstall {plugin.distribution})"


def _reinstall(plugin: Plugin) -> str:
    return f"pip install --force-reinstall --no-deps {plugin.distribution}"
