"""Volume-preserving rearrangements: squeeze and flatten."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.bijectors.base import Bijector, require_shape, zero_log_det
from flowzoo.errors import ConfigError, InputError

SqueezeOrder = Literal["channel", "offset", "checkerboard"]

# Which pixel (0 1 / 2 3) of a 2x2 block comes first among the new channels.
_OFFSETS: dict[SqueezeOrder, tuple[int, ...]] = {
    "channel": (0, 1, 2, 3),
    "offset": (0, 1, 2, 3),
    "checkerboard": (0, 3, 1, 2),
}


class Squeeze(Bijector):
    """2x2 blocks of pixels become channels: ``(B, C, H, W)`` to ``(B, 4C, H/2, W/2)`` (RealNVP, section 3.6).

    | order | new channel of (channel c, pixel o of its block) | used by |
    |---|---|---|
    | ``channel`` | 4 c + o | Glow, torch's pixel_unshuffle |
    | ``offset`` | C o + c | TensorFlow's space_to_depth, Flow++ |
    | ``checkerboard`` | C o' + c, with the block's diagonal pixels before the others | RealNVP before factoring out |
    """

    def __init__(self, order: SqueezeOrder = "channel") -> None:
        """Makes a squeeze with this channel order."""
        super().__init__()
        if order not in _OFFSETS:
            raise ConfigError(f"squeeze order is {order!r}; choose one of {', '.join(_OFFSETS)}.")
        self.order = order

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
            raise InputError(f"Squeeze got shape {tuple(x.shape)}; expected (B, C, H, W) with even H and W.")
        z = F.pixel_unshuffle(x, 2)
        if self.order != "channel":
            blocks = z.unflatten(1, (x.shape[1], 4)).transpose(1, 2)
            z = torch.cat([blocks[:, o] for o in _OFFSETS[self.order]], dim=1)
        return _as_images(z), zero_log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if z.ndim != 4 or z.shape[1] % 4:
            raise InputError(f"Squeeze.inverse got shape {tuple(z.shape)}; expected (B, 4C, H, W).")
        x = z
        if self.order != "channel":
            blocks = z.unflatten(1, (4, z.shape[1] // 4))
            back = [_OFFSETS[self.order].index(o) for o in range(4)]
            x = torch.stack([blocks[:, o] for o in back], dim=2).flatten(1, 2)
        return _as_images(F.pixel_shuffle(x, 2)), zero_log_det(z)


class Flatten(Bijector):
    """``(B, C, H, W)`` to ``(B, C H W)`` in the order of the dimensions, whatever the memory layout."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Makes the map for items of this shape."""
        super().__init__()
        self.shape = tuple(shape)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, x, self.shape)
        return x.flatten(1), zero_log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, z, (math.prod(self.shape),))
        x = z.reshape(z.shape[0], *self.shape)
        return (_as_images(x) if x.ndim == 4 else x), zero_log_det(z)


def _as_images(x: Tensor) -> Tensor:
    # Convolutions with few channels train several times faster on CPU in this layout, and CUDA wants it.
    return x.contiguous(memory_format=torch.channels_last)
