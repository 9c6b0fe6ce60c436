"""Scale maps of affine couplings that learn nothing, in place and with their derivative; by name, as in configs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

MIN_LOGIT = -80.0
"""Below this a float32 sigmoid loses its digits and then its logarithm; e^-80 maps all to one point anyway."""

MIN_SCALE = 0.1
"""The least scale of ``bounded-sigmoid``: its inverse multiplies by at most 10."""

OFFSETS: Mapping[str, float] = {"exp": 0.0, "sigmoid2": 2.0, "bounded-sigmoid": 2.0, "clamp2": 0.0}
"""The maps that are implemented here, and the constant added to the raw log-scale first."""


def scale_into(name: str, out: Tensor, raw: Tensor, offset_added: bool = False) -> tuple[Tensor, Tensor]:
    """Scales s and log s of raw log-scales, one of them written to ``out``.

    Args:
        name: One of :data:`OFFSETS`.
        out: Overwritten; its dtype, float32 or wider, is that of the results.
        raw: Raw log-scales of the same shape, possibly of a narrower dtype.
        offset_added: Whether ``raw`` holds the offset already.
    """
    out.copy_(raw)
    if not offset_added and OFFSETS[name]:
        out.add_(OFFSETS[name])
    if name == "sigmoid2":
        scale = out.clamp_min_(MIN_LOGIT).sigmoid_()
        return scale, scale.log()
    if name == "bounded-sigmoid":
        scale = out.sigmoid_().mul_(1 - MIN_SCALE).add_(MIN_SCALE)
        return scale, scale.log()
    log_scale = out if name == "exp" else out.div_(2.0).tanh_().mul_(2.0)
    return log_scale.exp(), log_scale


def scale_backward(name: str, grad_log_scale: Tensor, scale: Tensor) -> Tensor:
    """The gradient at the raw log-scale, given that at log s and the scales s."""
    if name == "exp":
        return grad_log_scale
    if name == "sigmoid2":
        # d log sigmoid(v) / dv = 1 - sigmoid(v), also beyond MIN_LOGIT: there it leads back.
        return torch.addcmul(grad_log_scale, grad_log_scale, scale, value=-1)
    if name == "bounded-sigmoid":
        # With m the least scale, d log s / dv = (s - m) (1 - s) / (s (1 - m)).
        return grad_log_scale * ((scale - MIN_SCALE) * (1 - scale) / (scale * (1 - MIN_SCALE)))
    # d 2 tanh(v / 2) / dv = 1 - tanh(v / 2)^2
    return torch.addcmul(grad_log_scale, grad_log_scale, scale.log().square(), value=-0.25)
