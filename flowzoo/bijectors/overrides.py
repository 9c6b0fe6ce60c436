"""Whether a bijector is what its class makes of it, or has to be called."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

from flowzoo.nets.caching import is_watched


def is_called(bijector: nn.Module) -> bool:
    """Whether someone wants every call of this one."""
    own = bijector.__dict__
    patched = "forward" in own or "inverse" in own or "_forward" in own or "_inverse" in own
    return patched or "_compiled_call_impl" in own or is_watched(bijector)


@cache
def maps_are(kind: Any, owner: Any) -> bool:
    """Whether a class maps as this other one does."""
    return all(
        getattr(kind, name) is getattr(owner, name, None)
        for name in ("__call__", "forward", "inverse", "_forward", "_inverse")
    )
