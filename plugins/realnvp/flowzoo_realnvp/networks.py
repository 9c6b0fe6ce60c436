"""The networks inside RealNVP's couplings, and the one that looks at an image for its dequantization."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.bijectors import checkerboard_mask
from flowzoo.nets.conv import ConvStack
from flowzoo.nets.layout import channels_last
from flowzoo.nets.resnet import ResidualNetwork, ShiftBatchNorm2d

__all__ = ["CouplingNetwork", "ImageContext", "NetworkKind", "conv_network"]

NetworkKind = Literal["resnet", "conv"]


def conv_network(in_channels: int, out_channels: int, features: int, *, batch_norm: bool) -> nn.Module:
    """Makes conv3x3, ReLU, conv1x1, ReLU, conv3x3, with batch norm before each ReLU if asked for.

    The last convolution begins at zero, so that a coupling begins as the identity.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        features: Width.
        batch_norm: Whether the network has batch norm.
    """
    first = nn.Conv2d(in_channels, features, 3, padding=1, bias=not batch_norm)
    second = nn.Conv2d(features, features, 1, bias=not batch_norm)
    last = nn.Conv2d(features, out_channels, 3, padding=1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    if batch_norm:
        norms = [ShiftBatchNorm2d(features) for _ in range(2)]
        return nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU(), last)
    # The names are those of the layers of a sequence with ReLUs between them.
    return ConvStack({"0": first, "2": second, "4": last})


class CouplingNetwork(nn.Module):
    """The network that gives a coupling its shifts and log-scales.

    The input is joined by the mask of the pixels that it holds, if it is masked, and by a context, if there
    is one. The paper's residual networks see ``relu([bn(x), -bn(x), mask])``: nothing of x is lost to the
    rectifier.

    Args:
        kind: ``"resnet"`` or ``"conv"``.
        in_channels: Channels of the conditioning half.
        out_channels: Channels of the result.
        features: Width of the network.
        blocks: Residual blocks of ``"resnet"``.
        bottleneck: Whether these are bottlenecks.
        batch_norm: Whether the network has batch norm.
        mask: The colour of the checkerboard that the input holds, ``"even"`` or ``"odd"`` by row + column;
            None if the input is not masked.
        context_channels: Channels of the context; 0 for none.
        scales: Whether batch norms have a learned scale and all convolutions a length (``"resnet"`` only).
    """

    def __init__(
        self,
        kind: NetworkKind,
        in_channels: int,
        out_channels: int,
        features: int,
        *,
        blocks: int = 1,
        bottleneck: bool = False,
        batch_norm: bool = False,
        mask: Literal["even", "odd"] | None = None,
        context_channels: int = 0,
        scales: bool = False,
    ) -> None:
        super().__init__()
        self.rectified = kind == "resnet"
        self.mask = mask
        scales = scales and self.rectified
        self.norm = ShiftBatchNorm2d(in_channels, scale=scales) if batch_norm else nn.Identity()
        joined = in_channels * (2 if self.rectified else 1) + (mask is not None) + context_channels
        self.body: nn.Module
        if kind == "resnet":
            self.body = ResidualNetwork(
                joined,
                out_channels,
                features,
                blocks,
                batch_norm=batch_norm,
                bottleneck=bottleneck,
                scales=scales,
            )
        else:
            self.body = conv_network(joined, out_channels, features, batch_norm=batch_norm)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``; a context has the same H and W."""
        hidden = self.norm(x)
        parts = [F.relu(hidden), F.relu(-hidden)] if self.rectified else [hidden]
        if self.mask is not None:
            even = checkerboard_mask(x)
            mask = even if self.mask == "even" else 1 - even
            parts.append(mask.expand(x.shape[0], -1, -1, -1))
        if context is not None:
            parts.append(context)
        out: Tensor = self.body(channels_last(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)))
        return out


class ImageContext(nn.Module):
    """Features of each 2x2 block of an image, for the flow that dequantizes it.

    Args:
        in_channels: Channels of the image.
        features: Channels of the result.
    """

    def __init__(self, in_channels: int, features: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4 * in_channels, features, 3, padding=1)
        self.conv_out = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps ``(B, C, H, W)`` to ``(B, features, H/2, W/2)``; takes no context."""
        return F.relu(self.conv_out(F.relu(self.conv_in(channels_last(F.pixel_unshuffle(x, 2))))))
