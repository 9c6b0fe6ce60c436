"""Small things that other distributions announce by name: optimizers, schedules, augmentations, objectives, loggers.

Each kind has an entry-point group, such as ``flowzoo.optimizers``; the entry's name is what a recipe or a command
says, its value a class or function. Names that flowzoo brings itself stay what they are.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from flowzoo.errors import ConfigError, PluginError, did_you_mean
from flowzoo.registry.entry_points import declarations
from flowzoo.registry.isolation import ForeignFailure, bounded, import_reference, shortened

__all__ = ["Extension", "extension_names", "find_extension", "reset_extensions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """Something that is used by its name.

    Attributes:
        group: The entry-point group, such as ``"flowzoo.optimizers"``.
        name: Its name there.
        value: The class or function.
        distribution: Where it comes from.
        version: The version of that.
    """

    group: str
    name: str
    value: Any
    distribution: str
    version: str

    def origin(self) -> dict[str, str]:
        """What a record of its use says: kind, name, distribution and version."""
        kind = self.group.partition(".")[2].removesuffix("s")
        return {
            "kind": kind,
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
        }


def extension_names(group: str) -> list[str]:
    """The names that installed distributions announce in a group, sorted; none of them is imported."""
    return sorted({name for found in declarations(group) for name, _ in found.entries})


def reset_extensions() -> None:
    """Forgets what was imported; for tests and for code that installs distributions while it runs."""
    find_extension.cache_clear()


@functools.cache
def find_extension(group: str, name: str, built_in: tuple[str, ...], key: str) -> Extension:
    """Imports what a name stands for, once a process.

    Args:
        group: The entry-point group.
        name: The name that was asked for.
        built_in: Names that flowzoo brings itself, for the error message.
        key: Where the name was read, such as ``"optimizer.name"``, for the error message.

    Raises:
        ConfigError: Nothing of this name is installed; the message lists the names.
        PluginError: Its distribution is broken, or two distributions claim the name.
    """
    owners = {
        (found.distribution, found.version, value)
        for found in declarations(group)
        for entry, value in found.entries
        if entry == name
    }
    if not owners:
        known = sorted({*built_in, *extension_names(group)})
        raise ConfigError(
            f"{key} is {shortened(name, 100)!r}; choose one of {', '.join(known)}, or install a distribution with "
            f"that name among its entry points {group!r}.{did_you_mean(name, known)}"
        )
    if len(owners) > 1:
        listed = " and ".join(sorted(f"{owner} {version}" for owner, version, _ in owners))
        raise PluginError(f"{key}: {listed} both announce {name!r} in {group!r}; uninstall one of them.")
    [(distribution, version, reference)] = owners
    try:
        value = bounded(lambda: import_reference(reference))
    except ForeignFailure as failure:
        cause = failure.error if isinstance(failure.error, ForeignFailure) else failure
        raise PluginError(
            f"{key}: {name!r} of {distribution} {version} cannot be used: {cause}. Update or uninstall that "
            "distribution, or tell its authors."
        ) from failure.error
    if not callable(value):
        raise PluginError(
            f"{key}: {name!r} of {distribution} {version} is a {type(value).__name__}; expected a class or function."
        )
    return Extension(group=group, name=name, value=value, distribution=distribution, version=version)
