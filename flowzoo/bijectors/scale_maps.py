"""Maps from a network's raw output to the log-scale of an affine coupling.

The map is part of a model's function, so configs name it; papers and ports differ here more than anywhere.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.errors import ConfigError
from flowzoo.ops.scales import MIN_LOGIT, MIN_SCALE

ScaleMapName = Literal["exp", "tanh", "soft-tanh", "sigmoid2", "bounded-sigmoid", "clamp2"]


class ScaleMap(nn.Module):
    """Raw network output to log-scale, elementwise.

    | name | log s | source |
    |---|---|---|
    | ``exp`` | raw | plain affine coupling |
    | ``tanh`` | g tanh(raw) | RealNVP; g learned, one per channel |
    | ``soft-tanh`` | e^g tanh(raw / e^g) | bounded near identity around 0; g learned, one per channel |
    | ``sigmoid2`` | log sigmoid(raw + 2) | Glow |
    | ``bounded-sigmoid`` | log (0.1 + 0.9 sigmoid(raw + 2)) | Glow's, with scales of at least 0.1 |
    | ``clamp2`` | 2 tanh(raw / 2) | bounded to (-2, 2), nothing learned |
    """

    def __init__(self, name: ScaleMapName, channels: int, init: float = 1.0) -> None:
        """Makes the map.

        Args:
            name: One of the table's names.
            channels: Channels (or features) of the half that is transformed.
            init: Initial g of ``tanh``; ``soft-tanh`` begins at g = 0.
        """
        super().__init__()
        if name not in get_args(ScaleMapName):
            raise ConfigError(f"scale map is {name!r}; choose one of {', '.join(get_args(ScaleMapName))}.")
        self.name = name
        if name == "tanh":
            self.bound = nn.Parameter(torch.full((channels,), float(init)))
        elif name == "soft-tanh":
            self.bound = nn.Parameter(torch.zeros(channels))

    def forward(self, raw: Tensor) -> Tensor:
        """Maps raw output ``(B, C, ...)`` to log-scales of the same shape."""
        if self.name == "exp":
            return raw
        if self.name == "sigmoid2":
            return F.logsigmoid((raw + 2.0).clamp_min(MIN_LOGIT))
        if self.name == "bounded-sigmoid":
            return torch.log(MIN_SCALE + (1 - MIN_SCALE) * torch.sigmoid(raw + 2.0))
        if self.name == "clamp2":
            return 2.0 * torch.tanh(raw / 2.0)
        bound = self.bound.view(-1, *(1,) * (raw.ndim - 2))
        if self.name == "tanh":
            return bound * torch.tanh(raw)
        size = bound.exp()
        return size * torch.tanh(raw / size)
