"""How the features of a network lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.ops.autograd import transforms_active


def channels_last(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` with the channels of a pixel side by side in memory, as convolutions are fastest on a CPU."""
    # torch.func's transforms know no memory formats.
    return x if transforms_active() else x.contiguous(memory_format=torch.channels_last)
