"""Running a coupling's network in reduced precision while everything around it stays exact."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunsNetwork:
    """Mixin of modules that call a network through :func:`run_network`.

    Attributes:
        network_dtype: Autocast dtype of the networks (bfloat16), or None for the dtype of the data.
    """

    network_dtype: torch.dtype | None = None


def run_network(net: nn.Module, x: Tensor, context: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    """Calls ``net(x, context)``, under autocast to ``dtype`` if one is given; the result has the dtype of ``x``."""
    if dtype is None or x.dtype == torch.float64:
        out: Tensor = net(x, context)
    else:
        with torch.autocast(x.device.type, dtype=dtype):
            out = net(x, context)
    return out.to(x.dtype)
