"""Puts the manifest inside the wheel; an editable install reads the one at the checkout's root instead."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManifestHook(BuildHookInterface[Any]):
    """Adds the manifest to the package, except in an editable install, where a copy would grow stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds; ``version`` is ``"standard"`` or ``"editable"``."""
        if version != "editable":
            build_data["force_include"]["weights_manifest.json"] = "flowzoo/weights_manifest.json"
