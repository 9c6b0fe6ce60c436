"""Volume-preserving rearrangements: squeeze, patches and flatten."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from flowzoo.bijectors.base import Bijector, require_shape, zero_log_det
from flowzoo.errors import ConfigError, InputError
from flowzoo.ops.layout import channel_major

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
        # (B, C, row, i, column, j) with (i, j) the pixel inside its block; everything up to the copy is a view.
        blocks = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        if self.order == "channel":
            z = blocks.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
        else:
            z = blocks.permute(3, 5, 1, 0, 2, 4).flatten(0, 1)
            z = _take(z, _OFFSETS[self.order]).flatten(0, 1)
        return z.transpose(0, 1), zero_log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if z.ndim != 4 or z.shape[1] % 4:
            raise InputError(f"Squeeze.inverse got shape {tuple(z.shape)}; expected (B, 4C, H, W).")
        rows = z.transpose(0, 1)
        if self.order == "channel":
            blocks = rows.unflatten(0, (-1, 2, 2)).permute(0, 3, 4, 1, 5, 2)
        else:
            back = tuple(_OFFSETS[self.order].index(o) for o in range(4))
            blocks = _take(rows.unflatten(0, (4, -1)), back).unflatten(0, (2, 2)).permute(2, 3, 4, 0, 5, 1)
        return blocks.flatten(4, 5).flatten(2, 3).transpose(0, 1), zero_log_det(z)


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
        return (channel_major(x) if x.ndim == 4 else x), zero_log_det(z)


def _take(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """The parts of dimension 0 in this order."""
    return x if order == tuple(range(len(order))) else torch.stack([x[o] for o in order])


class Patches(Bijector):
    """Images ``(B, C, H, W)`` to tokens ``(B, T, C p p)``, row by row; log|det| = 0."""

    def __init__(self, image_shape: tuple[int, int, int], patch: int) -> None:
        """Makes the map.

        Args:
            image_shape: ``(C, H, W)``.
            patch: p.
        """
        super().__init__()
        if any(size % patch for size in image_shape[1:]):
            raise ConfigError(f"an image of {image_shape} has no whole number of patches of {patch}x{patch}.")
        self.image_shape, self.patch = image_shape, patch

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, x, self.image_shape)
        rows, columns = self._grid()
        # Not F.pixel_unshuffle, which leaves an empty batch as it is.
        blocks = x.unflatten(3, (columns, self.patch)).unflatten(2, (rows, self.patch))
        tokens = blocks.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return tokens.contiguous(), zero_log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        (rows, columns), channels = self._grid(), self.image_shape[0]
        require_shape(self, z, (rows * columns, channels * self.patch**2))
        blocks = z.unflatten(2, (channels, self.patch, self.patch)).unflatten(1, (rows, columns))
        images = blocks.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return images.contiguous(), zero_log_det(z)

    def _grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_shape[1] // self.patch, self.image_shape[2] // self.patch
