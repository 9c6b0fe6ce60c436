"""The encoder and the decoder of an f-VAE: residual blocks between squeezes, as in the code of Su and Wu (2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.resnet import ShiftBatchNorm2d

Normalization = Literal["batch", "none"]


SMALL = 0.1
"""Factor on the weights of a last convolution whose biases are given, which then decide how it begins."""


class Block(nn.Module):
    """``x + conv1x1(relu(norm(conv3x3(x))))``, the identity at first."""

    def __init__(self, channels: int, normalization: Normalization) -> None:
        """Makes the block.

        Args:
            channels: Channels of input and output.
            normalization: ``"batch"`` norm or ``"none"`` behind the 3x3 convolution, which in the latter case has a
                bias.
        """
        super().__init__()
        batch = normalization == "batch"
        self.first = _convolution(channels, channels, 3, bias=not batch)
        self.norm = (
            ShiftBatchNorm2d(channels, eps=1e-3, momentum=0.01, scale=True) if batch else nn.Identity()
        )
        self.second = _convolution(channels, channels, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, H, W)`` to the same shape."""
        return x + self.second(F.relu(self.norm(self.first(x))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """An image to features of the latent's size: at each level a squeeze, then residual blocks."""

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        out_channels: int,
        blocks: int,
        normalization: Normalization,
        *,
        pixels: bool = False,
    ) -> None:
        """Makes the network.

        Args:
            in_channels: Channels of the image.
            widths: Channels of each level; where a squeeze makes another number, a 1x1 convolution follows it.
            out_channels: Channels of the result, by a 1x1 convolution where the last level has another number.
            blocks: Residual blocks of each level.
            normalization: Inside the blocks.
            pixels: Whether images come as grey levels in [0, 1], to be seen as 2 x - 1.
        """
        super().__init__()
        self.pixels = pixels
        self.levels = nn.ModuleList()
        for width in widths:
            self.levels.append(
                nn.Sequential(
                    nn.PixelUnshuffle(2),
                    _changed(4 * in_channels, width),
                    *(Block(width, normalization) for _ in range(blocks)),
                )
            )
            in_channels = width
        self.out = _changed(in_channels, out_channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, h, w)``; ``context`` is ignored."""
        hidden = 2 * x - 1 if self.pixels else x
        for level in self.levels:
            hidden = level(hidden)
        return self.out(hidden)  # type: ignore[no-any-return]


class FlatEncoder(nn.Module):
    """An encoder whose features are given as ``(B, D)``, as an augmentation takes them."""

    def __init__(self, encoder: Encoder) -> None:
        """Wraps an encoder."""
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O h w)``; ``context`` is ignored."""
        return self.encoder(x).flatten(1)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """The encoder mirrored: residual blocks, then a squeeze taken back, at each level from the last to the first."""

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        out_channels: int,
        blocks: int,
        normalization: Normalization,
        *,
        tanh_channels: int = 0,
        start: Sequence[float] = (),
    ) -> None:
        """Makes the network.

        Args:
            in_channels: Channels of the latent.
            widths: Channels of each level of the encoder.
            out_channels: Channels of the result.
            blocks: Residual blocks of each level.
            normalization: Inside the blocks.
            tanh_channels: How many channels of the result, from the first, are within (-1, 1) by a tanh.
            start: Of the biases of the last convolution, one for each channel of the result; empty for zeros.
        """
        super().__init__()
        self.tanh_channels = tanh_channels
        self.enter = _changed(in_channels, widths[-1])
        self.levels = nn.ModuleList()
        outputs = [*reversed(widths[:-1]), out_channels]
        for width, below in zip(reversed(widths), outputs, strict=True):
            given = len(self.levels) == len(widths) - 1 and len(start) > 0
            change = _starting_at(width, start) if given else _changed(width, 4 * below)
            stack = [*(Block(width, normalization) for _ in range(blocks)), change, nn.PixelShuffle(2)]
            self.levels.append(nn.Sequential(*stack))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, O, h, w)`` to ``(B, C, H, W)``; ``context`` is ignored."""
        hidden = self.enter(x)
        for level in self.levels:
            hidden = level(hidden)
        if not self.tanh_channels:
            return hidden  # type: ignore[no-any-return]
        bounded, free = hidden[:, : self.tanh_channels], hidden[:, self.tanh_channels :]
        return torch.cat((torch.tanh(bounded), free), dim=1)


def _convolution(in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True) -> nn.Conv2d:
    found = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
    nn.init.xavier_uniform_(found.weight)
    if found.bias is not None:
        nn.init.zeros_(found.bias)
    return found


def _changed(in_channels: int, out_channels: int) -> nn.Module:
    """Changes the number of channels where it has to be changed."""
    return nn.Identity() if in_channels == out_channels else _convolution(in_channels, out_channels, 1)


def _starting_at(in_channels: int, start: Sequence[float]) -> nn.Module:
    """A 1x1 convolution to four channels for each number, which is their bias."""
    found = _convolution(in_channels, 4 * len(start), 1)
    assert found.bias is not None
    with torch.no_grad():
        found.weight.mul_(SMALL)
        found.bias.copy_(torch.tensor(start).repeat_interleave(4))
    return found
