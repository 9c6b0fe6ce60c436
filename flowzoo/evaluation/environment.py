"""Versions and hardware that a measurement or a training ran on, for records."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from flowzoo.registry import get_plugin


def versions(architecture: str | None = None) -> dict[str, str]:
    """Versions of everything that can move a digit.

    Args:
        architecture: Whose plugin to name, too.
    """
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("flowzoo", "numpy"):
        found[name] = _version(name)
    if architecture is not None:
        plugin = get_plugin(architecture)
        found[str(plugin.distribution)] = str(plugin.version)
    return found


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def environment(device: torch.device) -> dict[str, Any]:
    """The machine, without anything that names its owner."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "system": platform.system(),
    }
