"""The convolutional network inside Glow's couplings and its layers."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.errors import ConfigError
from flowzoo.nets.initialization import DataDependentInit

Normalization = Literal["actnorm", "none"]


class EdgeBiasConv2d(nn.Module):
    """A same-size convolution; with ``edge_bias`` it also sees an indicator of the zero padding.

    The indicator is one more input channel where the input has fewer channels than the output; elsewhere its
    convolution, the same for every image, is one ``(O, H, W)`` map added to the batch. Both are the official code's
    function; each is the cheaper way where it is used, above all backwards.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, edge_bias: bool = False
    ) -> None:
        """Makes a convolution without bias, weights N(0, 0.05)."""
        super().__init__()
        self.padding = kernel_size // 2
        self.weight = nn.Parameter(0.05 * torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.edge_weight: nn.Parameter | None = None
        if edge_bias and kernel_size > 1:
            self.edge_weight = nn.Parameter(0.05 * torch.randn(out_channels, 1, kernel_size, kernel_size))
        self.indicator_channel = self.edge_weight is not None and in_channels < out_channels

    def convolve(self, x: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)`` with the outputs times ``scale`` ``(O,)`` plus ``bias`` ``(O,)``."""
        weight, edge = self.weight, self.edge_weight
        if edge is not None and self.indicator_channel:
            # Zero padding marks the outside of a channel of ones: edge at 1 - ones is a bias less edge at ones.
            x = torch.cat((x, x.new_ones(()).expand(x.shape[0], 1, *x.shape[2:])), dim=1)
            weight = torch.cat((weight, -edge), dim=1)
            inside = edge.sum(dim=(1, 2, 3))
            inside = inside if scale is None else inside * scale
            bias = inside if bias is None else bias + inside
        if scale is not None:
            weight = weight * scale.view(-1, 1, 1, 1)
        x = x.contiguous(memory_format=torch.channels_last)
        out = F.conv2d(x, weight, bias, padding=self.padding)
        if edge is None or self.indicator_channel:
            return out
        return out + self._edge_map(x, edge if scale is None else edge * scale.view(-1, 1, 1, 1)).to(out.dtype)

    def _edge_map(self, x: Tensor, edge: Tensor) -> Tensor:
        """The indicator's convolution, ``(1, O, H, W)``, as a product of two small matrices."""
        height, width = x.shape[-2:]
        inside = torch.ones(1, 1, height, width, dtype=edge.dtype, device=x.device)
        outside = 1 - F.unfold(inside, edge.shape[-2:], padding=self.padding)[0]
        out = outside.t() @ edge.flatten(1).t()
        return out.view(1, height, width, -1).permute(0, 3, 1, 2)


class ActNormConv2d(DataDependentInit):
    """A convolution and an ActNorm in one: actnorm(conv(x)) as a convolution with scaled weights."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        edge_bias: bool = False,
        log_scale_factor: float = 3.0,
    ) -> None:
        """Makes the layer; its first batch comes out with zero mean and unit variance."""
        super().__init__()
        self.conv = EdgeBiasConv2d(in_channels, out_channels, kernel_size, edge_bias)
        self.log_scale_factor = log_scale_factor
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.log_scale = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``."""
        if self.wants_init():
            self._initialize_from(self.conv.convolve(x, None, None))
        scale = torch.exp(self.log_scale * self.log_scale_factor)
        return self.conv.convolve(x, scale, self.bias * scale)

    @torch.no_grad()
    def _initialize_from(self, h: Tensor) -> None:
        var, mean = torch.var_mean(h.double(), dim=(0, 2, 3), correction=0)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-torch.log(var.sqrt() + 1e-6) / self.log_scale_factor)
        self.mark_initialized()


class BiasConv2d(nn.Module):
    """A convolution with a bias and no normalization, torch's default initialisation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, edge_bias: bool = False
    ) -> None:
        """Makes the layer."""
        super().__init__()
        self.conv = EdgeBiasConv2d(in_channels, out_channels, kernel_size, edge_bias)
        nn.init.kaiming_uniform_(self.conv.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``."""
        return self.conv.convolve(x, None, self.bias)


class ZeroConv2d(nn.Module):
    """A convolution that starts at zero, its outputs scaled by exp(3 s) (OpenAI's Glow, ``conv2d_zeros``)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        edge_bias: bool = False,
        log_scale_factor: float = 3.0,
    ) -> None:
        """Makes the layer."""
        super().__init__()
        self.conv = EdgeBiasConv2d(in_channels, out_channels, kernel_size, edge_bias)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)
        self.log_scale_factor = log_scale_factor
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.log_scale = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``; ``context`` is ignored."""
        scale = torch.exp(self.log_scale * self.log_scale_factor)
        return self.conv.convolve(x, scale, self.bias * scale)


class RectifiedAffine(nn.Module):
    """relu(w x + b), one w and b per channel: what batch normalization and a ReLU are once trained."""

    def __init__(self, channels: int) -> None:
        """Makes the layer, w = 1 and b = 0."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return F.relu(torch.addcmul(self.bias.view(-1, 1, 1), x, self.weight.view(-1, 1, 1)))


class ConvNet(nn.Module):
    """conv 3x3, ReLU, conv 1x1, ReLU, zero-initialised conv 3x3: the network of Glow's couplings (appendix B)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        context_channels: int = 0,
        normalization: Normalization = "actnorm",
        edge_bias: bool = False,
        rectified_input: bool = False,
    ) -> None:
        """Makes the network.

        Args:
            in_channels: Channels of the conditioner.
            out_channels: Channels of the parameters.
            hidden_channels: Width of both hidden layers.
            context_channels: Channels of a context of the same height and width, concatenated to the input.
            normalization: ``"actnorm"`` after both hidden convolutions, as in the official code, or ``"none"``.
            edge_bias: Whether the 3x3 convolutions see where the padding is, as in the official code.
            rectified_input: Whether a :class:`RectifiedAffine` comes first.
        """
        super().__init__()
        if normalization not in get_args(Normalization):
            choices = ", ".join(get_args(Normalization))
            raise ConfigError(f"normalization is {normalization!r}; choose one of {choices}.")
        self.rectify = RectifiedAffine(in_channels + context_channels) if rectified_input else None
        layer = ActNormConv2d if normalization == "actnorm" else BiasConv2d
        self.first = layer(in_channels + context_channels, hidden_channels, 3, edge_bias)
        self.second = layer(hidden_channels, hidden_channels, 1)
        self.last = ZeroConv2d(hidden_channels, out_channels, 3, edge_bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)``, and a context ``(B, K, H, W)``, to ``(B, O, H, W)``."""
        if context is not None:
            x = torch.cat((x, context), dim=1)
        if self.rectify is not None:
            x = self.rectify(x)
        h = F.relu(self.first(x), inplace=True)
        h = F.relu(self.second(h), inplace=True)
        out: Tensor = self.last(h)
        return out


class SqueezedContextNet(nn.Module):
    """An image to features at half its resolution: 2x2 blocks to channels, conv 3x3, ReLU, conv 3x3."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Makes the network."""
        super().__init__()
        self.first = ActNormConv2d(4 * in_channels, out_channels, 3)
        self.second = ActNormConv2d(out_channels, out_channels, 3)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H/2, W/2)``; ``context`` is ignored."""
        squeezed = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.second(F.relu(self.first(squeezed)))
        return out
