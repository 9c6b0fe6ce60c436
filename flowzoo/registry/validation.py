"""Loads what an entry point names and judges whether this core can use it."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

from flowzoo.api import API_VERSION, SUPPORTED_API_VERSIONS, Architecture
from flowzoo.registry.contents import REFERENCE, faults, plain_copy
from flowzoo.registry.isolation import ForeignFailure, foreign_code, import_reference, shortened
from flowzoo.registry.plugin import Plugin, PluginState

__all__ = ["Rejected", "check_code", "load_architecture", "mend_import"]


class Rejected(Exception):
    """Loading a plugin failed; the arguments are its state, the cause and the mending command."""

    def __init__(self, state: PluginState, cause: str, mend: str) -> None:
        super().__init__(cause)
        self.state, self.cause, self.mend = state, shortened(cause, 600), mend


def load_architecture(plugin: Plugin) -> Architecture:
    """Imports what an entry point names and judges it, without a look at the code that it refers to.

    Imports no torch unless the plugin does.

    Raises:
        Rejected: It cannot be used.
    """
    if not REFERENCE.fullmatch(plugin.entry_point):
        cause = f"the entry point's value {plugin.entry_point!r} is not of the form 'module:ATTRIBUTE'"
        raise Rejected(PluginState.BROKEN, cause, plugin.upgrade)
    try:
        found = import_reference(plugin.entry_point)
    except ForeignFailure as failure:
        declared = _declared_api_version(plugin.entry_point)
        if declared is not None and declared not in SUPPORTED_API_VERSIONS:
            raise _version_mismatch(declared, plugin) from failure
        mend = mend_import(failure.error, plugin)
        raise Rejected(PluginState.BROKEN, str(failure), mend) from failure
    return _judged(found, plugin)


def _judged(found: Any, plugin: Plugin) -> Architecture:
    """A plain copy of ``found``, if it is an Architecture that this core can use.

    Raises:
        Rejected: It is not.
    """
    version = getattr(found, "api_version", None)
    if type(version) is int and version not in SUPPORTED_API_VERSIONS:
        raise _version_mismatch(version, plugin)
    if not isinstance(found, Architecture):
        kind = type(found)
        fault = f"the entry point is a {kind.__module__}.{kind.__qualname__}, not a flowzoo.api.Architecture"
        raise Rejected(PluginState.BROKEN, fault, plugin.upgrade)
    copy = plain_copy(found)
    for fault in faults(copy, plugin.name):
        raise Rejected(PluginState.BROKEN, fault, plugin.upgrade)
    return copy


def check_code(architecture: Architecture, plugin: Plugin) -> None:
    """Imports the config class and looks for the model's module, which is not imported: it imports torch.

    Raises:
        Rejected: One of them is not there, or the config class is no dataclass.
    """
    try:
        config = import_reference(architecture.config)
        with foreign_code():
            model = importlib.util.find_spec(architecture.build.partition(":")[0])
    except ForeignFailure as failure:
        cause = f"its config class {architecture.config} cannot be imported: {failure}"
        raise Rejected(PluginState.BROKEN, cause, mend_import(failure.error, plugin)) from failure
    if not isinstance(config, type) or not dataclasses.is_dataclass(config):
        cause = f"its config class {architecture.config} is not a dataclass"
        raise Rejected(PluginState.BROKEN, cause, plugin.upgrade)
    if model is None:
        cause = f"its build function {architecture.build} is in a module that does not exist"
        raise Rejected(PluginState.BROKEN, cause, plugin.reinstall)


def _version_mismatch(declared: int, plugin: Plugin) -> Rejected:
    spoken = " and ".join(map(str, SUPPORTED_API_VERSIONS))
    cause = f"it was written for plugin API {declared}; this flowzoo speaks {spoken}"
    mend = "pip install --upgrade flowzoo" if declared > API_VERSION else plugin.upgrade
    return Rejected(PluginState.INCOMPATIBLE, cause, mend)


def _declared_api_version(entry_point: str) -> int | None:
    """The literal ``api_version`` in a module's source that could not be imported.

    A plugin for a newer core may use names that this core lacks, and then fails on import with an
    ImportError or TypeError; its literal still tells that it is the core that is too old.
    """
    import ast

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


def mend_import(error: BaseException, plugin: Plugin) -> str:
    """The command for a failed import: files that are gone are restored, anything else is upgraded.

    Upgrading also installs declared dependencies that are missing. The missing module's name is no
    distribution's name, so no command is made of it.
    """
    own = plugin.entry_point.split(":")[0].split(".")[0]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == own:
        return plugin.reinstall
    return plugin.upgrade
