"""A plugin as the registry sees it: a name, where it comes from, its state, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from flowzoo.api import Architecture
from flowzoo.errors import PluginError

__all__ = ["Kind", "Plugin", "PluginState"]

Kind = Literal["architecture", "manifest"]
"""What an entry point brings: an architecture, or a manifest of weights for architectures of others."""


class PluginState(StrEnum):
    """The states that an installed plugin can be in."""

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
        architecture: What the entry point resolves to, if the plugin is ``ok`` and brings one.
        kind: What it brings.
        manifest: Path of the manifest, if the plugin is ``ok`` and brings nothing else.
    """

    name: str
    state: PluginState
    distribution: str
    version: str
    entry_point: str
    cause: str = ""
    mend: str = ""
    architecture: Architecture | None = None
    kind: Kind = "architecture"
    manifest: str | None = None

    def error(self) -> PluginError:
        """The error that using this plugin raises."""
        return PluginError(
            f"Architecture {self.name!r} cannot be used: its plugin is {self.state}.\n"
            f"  entry point:  {self.name} = {self.entry_point}\n"
            f"  distribution: {self.distribution} {self.version}\n"
            f"  cause:        {self.cause}\n"
            f"  to mend it:   {self.mend}"
        )

    @property
    def upgrade(self) -> str:
        """The command for a fault that only a better release can mend."""
        return f"pip install --upgrade {self.distribution} (or: pip uninstall {self.distribution})"

    @property
    def reinstall(self) -> str:
        """The command for files that are gone."""
        return f"pip install --force-reinstall --no-deps {self.distribution}"
