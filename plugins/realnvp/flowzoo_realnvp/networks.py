"""The networks inside RealNVP's couplings, and the one that looks at an image for its dequantization."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.bijectors import checkerboard_mask
from flowzoo.nets.caching import watched
from flowzoo.nets.kernels import Kernel
from flowzoo.nets.rectified import rectified_convolutions
from flowzoo.nets.relu import relu
from flowzoo.nets.resnet import ResidualNetwork, ShiftBatchNorm2d

__all__ = ["ConvNetwork", "CouplingNetwork", "ImageContext", "NetworkKind"]

NetworkKind = Literal["resnet", "conv"]

PLAIN = (nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.Conv2d)
"""The layers that :class:`ConvNetwork` computes as one operation."""


class ConvNetwork(nn.Sequential):
    """conv3x3, ReLU, conv1x1, ReLU, conv3x3, with batch norm before each ReLU if asked for.

    The last convolution begins at zero, so that a coupling begins as the identity.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        features: Width.
        batch_norm: Whether the network has batch norm.
    """

    def __init__(self, in_channels: int, out_channels: int, features: int, *, batch_norm: bool) -> None:
        layers: list[nn.Module] = []
        for channels, kernel in ((in_channels, 3), (features, 1)):
            layers.append(nn.Conv2d(channels, features, kernel, padding=kernel // 2, bias=not batch_norm))
            if batch_norm:
                layers.append(ShiftBatchNorm2d(features))
            layers.append(nn.ReLU())
        last = nn.Conv2d(features, out_channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        super().__init__(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        kernels = [_kernel(layer) for layer in list(self)[::2]]
        plain = tuple(map(type, self)) == PLAIN and not watched(self)
        if plain and all(kernel is not None for kernel in kernels):
            return rectified_convolutions(x, [kernel for kernel in kernels if kernel is not None])
        for layer in self:
            x = layer(x)
        return x


def _kernel(layer: nn.Module) -> Kernel | None:
    """The layer as a kernel, if it is a convolution that keeps height and width, with a bias."""
    if not isinstance(layer, nn.Conv2d) or layer.bias is None or layer.padding_mode != "zeros":
        return None
    size = layer.kernel_size[0]
    same = (layer.padding, layer.stride, layer.dilation) == ((size // 2,) * 2, (1, 1), (1, 1))
    return Kernel(layer.weight, layer.bias, padding=size // 2) if same else None


class CouplingNetwork(nn.Module):
    """What a coupling computes its shifts and log-scales with.

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
            self.body = ConvNetwork(joined, out_channels, features, batch_norm=batch_norm)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``; a context has the same H and W."""
        hidden = self.norm(x)
        parts = [relu(hidden), relu(-hidden)] if self.rectified else [hidden]
        if self.mask is not None:
            even = checkerboard_mask(x)
            mask = even if self.mask == "even" else 1 - even
            parts.append(mask.expand(x.shape[0], -1, -1, -1))
        if context is not None:
            parts.append(context)
        # Convolutions are fastest in this layout, which packing and splitting may have lost.
        joined = torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.body(joined)
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
        blocks = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return relu(self.conv_out(relu(self.conv_in(blocks))))
