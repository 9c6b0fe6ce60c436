"""Convolutions over the pixels before each one, a network of them, and its evaluation pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.layout import channels_last


class CausalConv2d(nn.Module):
    """A convolution that sees rows above, and in its own row what is to the left; the pixel itself if asked to.

    Its kernel has ``rows + 1`` rows, the last of which is the pixel's own, and ``2 side + 1`` columns.
    """

    mask: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        rows: int = 1,
        side: int = 1,
        dilation: int = 1,
        itself: bool = True,
    ) -> None:
        """Makes the convolution.

        Args:
            inputs: Channels that come in.
            outputs: Channels that go out.
            rows: Rows above.
            side: Columns to the left and, above, to the right.
            dilation: Distance of the taps.
            itself: Whether the pixel itself is seen.
        """
        super().__init__()
        self.rows, self.side, self.dilation = rows, side, dilation
        self.weight = nn.Parameter(torch.empty(outputs, inputs, rows + 1, 2 * side + 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        mask = torch.ones(rows + 1, 2 * side + 1)
        mask[-1, side + int(itself) :] = 0
        self.register_buffer("mask", mask, persistent=False)
        seen = inputs * (rows * (2 * side + 1) + side + int(itself))
        nn.init.normal_(self.weight, std=seen**-0.5)

    def masked_weight(self) -> Tensor:
        """The kernel, zero where there is no connection."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, H, W)``."""
        up, side = self.rows * self.dilation, self.side * self.dilation
        return F.conv2d(
            F.pad(x, (side, side, up, 0)), self.masked_weight(), self.bias, dilation=self.dilation
        )

    def taps(self) -> list[tuple[int, int]]:
        """Rows and columns of what is seen, from the pixel."""
        return [
            (self.dilation * (r - self.rows), self.dilation * (c - self.side))
            for r, c in self.mask.nonzero().tolist()
        ]


class GatedBlock(nn.Module):
    """h + a sigmoid(b), (a, b) one hidden layer of what a causal convolution sees."""

    def __init__(self, features: int, dilation: int, dropout: float) -> None:
        """Makes the block; it begins near the identity.

        Args:
            features: Channels.
            dilation: Of the convolution.
            dropout: Of the hidden layer.
        """
        super().__init__()
        self.conv = CausalConv2d(features, features, dilation=dilation)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.out = nn.Conv2d(features, 2 * features, 1)
        nn.init.normal_(self.out.weight, std=0.1 * features**-0.5)
        _zero(self.out.bias)

    def forward(self, h: Tensor) -> Tensor:
        """``(B, features, H, W)`` to the same."""
        hidden = F.silu(self.conv(F.silu(h)))
        if self.dropout is not None:
            hidden = self.dropout(hidden)
        a, b = self.out(hidden).chunk(2, dim=1)
        out: Tensor = h + a * torch.sigmoid(b)
        return out


class PixelCNN(nn.Module):
    """Gated causal convolutions (van den Oord et al., 2016): P numbers for each pixel, of those before it alone."""

    def __init__(
        self, channels: int, features: int, dilations: Sequence[int], parameters: int, dropout: float
    ) -> None:
        """Makes the network; all outputs are zero at first.

        Args:
            channels: Of images.
            features: Channels of hidden layers.
            dilations: One for each block.
            parameters: P.
            dropout: In the blocks.
        """
        super().__init__()
        # One more channel is 1 in the image and 0 around it.
        self.first = CausalConv2d(channels + 1, features, rows=3, side=4, itself=False)
        self.blocks = nn.ModuleList(GatedBlock(features, dilation, dropout) for dilation in dilations)
        self.out = nn.Conv2d(features, parameters, 1)
        nn.init.zeros_(self.out.weight)
        _zero(self.out.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` of values in [-1, 1] to ``(B, P, H, W)``; ``context`` is ignored."""
        x = torch.cat((x, torch.ones_like(x[:, :1])), dim=1)
        h = self.first(channels_last(x))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.out(F.silu(h))
        return out


class Incremental:
    """A ``PixelCNN`` evaluated pixel by pixel: each hidden unit is computed once, when all that it sees is known.

    All pixels cost what one evaluation of the network costs, in small steps. Weights are taken as they are when it is
    made, without gradients.

    Args:
        net: The network, in evaluation.
        shape: ``(B, C, H, W)`` of the images.
    """

    def __init__(self, net: PixelCNN, shape: tuple[int, int, int, int]) -> None:
        self.net = net
        n, channels, height, width = shape
        self.first = _Taps(net.first, n, height, width)
        self.first.fill(channels, 1.0)
        self.blocks = []
        for block in net.blocks:
            assert isinstance(block, GatedBlock)
            self.blocks.append((_Taps(block.conv, n, height, width), *_matrix(block.out)))
        self.out = _matrix(net.out)

    def parameters(self, row: int, column: int) -> Tensor:
        """The parameters ``(B, P)`` of a pixel, all before it being known."""
        h = self.first.at(row, column)
        for conv, weight, bias in self.blocks:
            conv.add(row, column, F.silu(h))
            a, b = torch.addmm(bias, F.silu(conv.at(row, column)), weight).chunk(2, dim=1)
            h = h + a * torch.sigmoid(b)
        weight, bias = self.out
        return torch.addmm(bias, F.silu(h), weight)

    def add(self, row: int, column: int, pixel: Tensor) -> None:
        """Takes a pixel ``(B, C)`` of values in [-1, 1]."""
        self.first.add(row, column, torch.cat((pixel, torch.ones_like(pixel[:, :1])), dim=1))


class _Taps:
    """A causal convolution and all that it has been given, with zeros around."""

    def __init__(self, conv: CausalConv2d, n: int, height: int, width: int) -> None:
        taps = conv.taps()
        self.up, self.side = conv.rows * conv.dilation, conv.side * conv.dilation
        self.width = width + 2 * self.side
        self.height, self.inner = height, width
        weight = conv.masked_weight().detach()
        self.seen = weight.new_zeros(n, (height + self.up) * self.width, weight.shape[1])
        offsets = [row * self.width + column for row, column in taps]
        self.offsets = torch.tensor(offsets, device=weight.device)
        chosen = weight[:, :, conv.mask.bool()]  # (outputs, inputs, taps)
        self.weight = chosen.permute(2, 1, 0).flatten(0, 1).contiguous()
        self.bias = conv.bias.detach()

    def place(self, row: int, column: int) -> int:
        """Where a pixel lies in ``seen``."""
        return (row + self.up) * self.width + column + self.side

    def fill(self, channel: int, value: float) -> None:
        """Sets a channel inside of the image."""
        image = self.seen.unflatten(1, (-1, self.width))
        image[:, self.up :, self.side : self.side + self.inner, channel] = value

    def add(self, row: int, column: int, value: Tensor) -> None:
        """Takes the value ``(B, inputs)`` of a pixel."""
        self.seen[:, self.place(row, column)] = value

    def at(self, row: int, column: int) -> Tensor:
        """The output ``(B, outputs)`` at a pixel."""
        seen = self.seen.index_select(1, self.offsets + self.place(row, column))
        return torch.addmm(self.bias, seen.flatten(1), self.weight)


def _zero(parameter: Tensor | None) -> None:
    """Sets a parameter to zero."""
    assert parameter is not None
    nn.init.zeros_(parameter)


def _matrix(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight ``(inputs, outputs)`` and bias of a 1x1 convolution."""
    assert conv.bias is not None
    return conv.weight.detach()[:, :, 0, 0].T.contiguous(), conv.bias.detach()
