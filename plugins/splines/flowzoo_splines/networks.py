"""The networks inside spline couplings, and the one-blob encoding of what they see."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.conv import ConvStack
from flowzoo.nets.layout import channels_last
from flowzoo.nets.resnet import ShiftBatchNorm2d

__all__ = ["ConvResidualNet", "DenseUNet", "OneBlob", "conv_network"]


def conv_network(in_channels: int, out_channels: int, features: int) -> ConvStack:
    """Makes conv3x3, ReLU, conv1x1, ReLU, conv3x3, the last of which begins at zero."""
    last = nn.Conv2d(features, out_channels, 3, padding=1)
    _zero(last)
    layers = {
        "first": nn.Conv2d(in_channels, features, 3, padding=1),
        "second": nn.Conv2d(features, features, 1),
        "last": last,
    }
    return ConvStack(layers)


class ConvResidualBlock(nn.Module):
    """x + conv3x3(dropout(relu(bn(conv3x3(relu(bn(x)))))))."""

    def __init__(self, features: int, dropout: float) -> None:
        """Makes the block.

        Args:
            features: Channels.
            dropout: Probability of dropping a value before the second convolution, in training.
        """
        super().__init__()
        self.norms = nn.ModuleList(ShiftBatchNorm2d(features, eps=1e-3, scale=True) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        # A block begins near the identity.
        for parameter in self.convs[1].parameters():
            nn.init.uniform_(parameter, -1e-3, 1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        hidden = self.convs[0](F.relu(self.norms[0](x)))
        out: Tensor = x + self.convs[1](self.dropout(F.relu(self.norms[1](hidden))))
        return out


class ConvResidualNet(nn.Module):
    """Residual blocks between two 1x1 convolutions: the network of NSF's image models (appendix B.3).

    The last convolution begins at zero, so that a coupling begins as the identity; in the released code it begins as
    torch draws it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, features: int, blocks: int, dropout: float
    ) -> None:
        """Makes the network.

        Args:
            in_channels: Channels of the conditioner.
            out_channels: Channels of the parameters.
            features: Width.
            blocks: Residual blocks.
            dropout: In each block.
        """
        super().__init__()
        self.first = nn.Conv2d(in_channels, features, 1)
        self.blocks = nn.ModuleList(ConvResidualBlock(features, dropout) for _ in range(blocks))
        self.last = nn.Conv2d(features, out_channels, 1)
        _zero(self.last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``; ``context`` is ignored."""
        hidden = self.first(channels_last(x))
        for block in self.blocks:
            hidden = block(hidden)
        out: Tensor = self.last(hidden)
        return out


class OneBlob(nn.Module):
    """Each value of [0, 1] as a normal bump over K bins, before a network (NIS, section 4.3).

    The k-th number is exp(-(x - m_k)^2 K^2 / 2), m_k the middle of the bin: close values have close encodings, and
    distant ones share nothing.
    """

    def __init__(self, bins: int, net: nn.Module) -> None:
        """Makes the encoding.

        Args:
            bins: K.
            net: Sees ``(B, K D)``.
        """
        super().__init__()
        self.net = net
        self.bins = bins

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, D)`` to the network's output."""
        middles = (torch.arange(self.bins, device=x.device, dtype=x.dtype) + 0.5) / self.bins
        blobs = torch.exp(-0.5 * ((x.unsqueeze(-1) - middles) * self.bins).square())
        out: Tensor = self.net(blobs.flatten(1), context)
        return out


class DenseUNet(nn.Module):
    """Linear layers whose widths halve on the way in and double on the way out, where the first half's are added.

    ReLU after every layer but the last, which begins at zero.
    """

    def __init__(self, in_features: int, out_features: int, features: int, halvings: int) -> None:
        """Makes the network.

        Args:
            in_features: Length of the input.
            out_features: Length of the output.
            features: Width of the outermost layers, a multiple of 2 ** halvings.
            halvings: How often the width is halved.
        """
        super().__init__()
        widths = [features >> i for i in range(halvings + 1)]
        self.first = nn.Linear(in_features, features)
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(nn.Linear(b, a) for a, b in itertools.pairwise(widths))
        self.last = nn.Linear(features, out_features)
        _zero(self.last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, in_features)`` to ``(B, out_features)``; ``context`` is ignored."""
        hidden, kept = F.relu(self.first(x)), []
        for layer in self.down:
            kept.append(hidden)
            hidden = F.relu(layer(hidden))
        for layer, skip in zip(reversed(self.up), reversed(kept), strict=True):
            hidden = F.relu(layer(hidden)) + skip
        out: Tensor = self.last(hidden)
        return out


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
