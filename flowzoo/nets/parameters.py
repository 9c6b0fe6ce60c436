"""Drawing parameters, by the one kind of call that loading can leave out (flowzoo.weights.skip_init)."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["drawn_normal"]


@torch.no_grad()
def drawn_normal(shape: tuple[int, ...], std: float) -> nn.Parameter:
    """A new parameter, normal with mean 0 and standard deviation ``std``; the same bits as ``std * torch.randn``."""
    parameter = nn.Parameter(torch.empty(shape))
    parameter.normal_().mul_(std)
    return parameter
