"""Maps from a network's raw output to the log-scale of an affine coupling.

The map is part of a model's function, so configs name it; papers and ports differ here more than anywhere.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.errors import ConfigError

# Below this a float32 sigmoid loses its digits and then its logarithm; a scale of e^-80 maps all to one point anyway.
MIN_LOGIT = -80.0

ScaleMapName = Literal["exp", "tanh", "soft-tanh", "sigmoid2", "clamp2"]


class ScaleMap(nn.Module):
    """Raw network output to log-scale, elementwise.

    | name | log s | source |
    |---|---|---|
    | ``exp`` | raw | plain affine coupling |
    | ``tanh`` | g tanh(raw) | RealNVP; g learned, one per channel |
    | ``soft-tanh`` | e^g tanh(raw / e^g) | bounded near identity around 0; g learned, one per channel |
    | ``sigmoid2`` | log sigmoid(raw + 2) | Glow |
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

    @property
    def is_fixed(self) -> bool:
        """True if nothing in the map is learned."""
        return self.name not in ("tanh", "soft-tanh")

    @property
    def offset(self) -> float:
        """What is added to the raw output first, and might as well be by the network's last bias."""
        return 2.0 if self.name == "sigmoid2" else 0.0

    def scale_into(self, out: Tensor, raw: Tensor, offset_added: bool = False) -> tuple[Tensor, Tensor]:
        """As :meth:`scale`, of a fixed map and outside of autograd: s or log s is written to ``out``.

        ``raw`` may be of a narrower dtype, and may hold the :attr:`offset` already.
        """
        if self.name == "sigmoid2":
            if offset_added:
                torch.clamp_min(raw, MIN_LOGIT, out=out)
            elif raw.dtype == out.dtype:
                torch.add(raw, self.offset, out=out).clamp_min_(MIN_LOGIT)
            else:
                out.copy_(raw).add_(self.offset).clamp_min_(MIN_LOGIT)
            scale = out.sigmoid_()
            return scale, scale.log()
        out.copy_(raw)
        log_scale = out if self.name == "exp" else out.div_(2.0).tanh_().mul_(2.0)
        return log_scale.exp(), log_scale

    def pull(self, grad_log_scale: Tensor, scale: Tensor) -> Tensor:
        """The gradient at the raw output of a fixed map, given that at log s and the scales s."""
        if self.name == "exp":
            return grad_log_scale
        if self.name == "sigmoid2":
            # d log sigmoid(v) / dv = 1 - sigmoid(v), also beyond MIN_LOGIT: there it leads back.
            return torch.addcmul(grad_log_scale, grad_log_scale, scale, value=-1)
        # d 2 tanh(v / 2) / dv = 1 - tanh(v / 2)^2
        return torch.addcmul(grad_log_scale, grad_log_scale, scale.log().square(), value=-0.25)

    def scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Maps raw output ``(B, C, ...)`` to scales s and log s of the same shape."""
        if self.name == "sigmoid2":
            scale = torch.sigmoid((raw + self.offset).clamp_min(MIN_LOGIT))
            return scale, scale.log()
        log_scale = self(raw)
        return log_scale.exp(), log_scale

    def forward(self, raw: Tensor) -> Tensor:
        """Maps raw output ``(B, C, ...)`` to log-scales of the same shape."""
        if self.name == "exp":
            return raw
        if self.name == "sigmoid2":
            return F.logsigmoid((raw + self.offset).clamp_min(MIN_LOGIT))
        if self.name == "clamp2":
            return 2.0 * torch.tanh(raw / 2.0)
        bound = self.bound.view(-1, *(1,) * (raw.ndim - 2))
        if self.name == "tanh":
            return bound * torch.tanh(raw)
        size = bound.exp()
        return size * torch.tanh(raw / size)
