"""A context without autocast, for what has to be computed in the precision of its inputs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """A context in which autocast is off on a device; nothing on devices that have none, such as ``meta``."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
