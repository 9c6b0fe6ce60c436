"""What a measurement ran on: versions and hardware, for records."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Versions of everything that can move a digit."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("flowzoo", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


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
