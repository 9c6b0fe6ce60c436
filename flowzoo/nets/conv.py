"""The convolutional networks inside couplings, and the layers of Glow's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.errors import ConfigError
from flowzoo.nets.accelerate import accelerated
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.layout import channels_last
from flowzoo.nets.parameters import drawn_normal

Normalization = Literal["actnorm", "none"]


class EdgeBiasConv2d(nn.Module):
    """A same-size convolution; with ``edge_bias`` it also sees an indicator of the zero padding.

    The indicator is an input channel that is 1 outside the image and 0 inside, as in OpenAI's code.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, edge_bias: bool = False
    ) -> None:
        """Makes a convolution without bias, weights N(0, 0.05)."""
        super().__init__()
        self.padding = kernel_size // 2
        self.weight = drawn_normal((out_channels, in_channels, kernel_size, kernel_size), std=0.05)
        self.edge_weight: nn.Parameter | None = None
        if edge_bias and kernel_size > 1:
            self.edge_weight = drawn_normal((out_channels, 1, kernel_size, kernel_size), std=0.05)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``."""
        out = F.conv2d(x, self.weight, padding=self.padding)
        if self.edge_weight is None:
            return out
        outside = F.pad(torch.zeros_like(x[:1, :1]), (self.padding,) * 4, value=1.0)
        return out + F.conv2d(outside, self.edge_weight)


class FoldedConv2d(nn.Module):
    """A convolution with a bias, its output scaled: (conv(x) + b) exp(f s).

    Attributes:
        conv: The convolution itself.
        bias: b, ``(O,)``.
        log_scale: s, ``(O,)``, or None for no scale.
        log_scale_factor: f; OpenAI's Glow stores log-scales divided by 3, which triples their learning rate.
    """

    log_scale: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        edge_bias: bool = False,
        log_scale_factor: float | None = 3.0,
    ) -> None:
        """Makes the layer; without a factor its outputs are not scaled."""
        super().__init__()
        self.conv = EdgeBiasConv2d(in_channels, out_channels, kernel_size, edge_bias)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.log_scale_factor = log_scale_factor
        scaled = log_scale_factor is not None
        self.log_scale = nn.Parameter(torch.zeros(out_channels)) if scaled else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``; ``context`` is ignored."""
        fast = accelerated(self, x)
        if fast is not None:
            return fast
        out: Tensor = self.conv(x) + self.bias.view(-1, 1, 1)
        if self.log_scale is None or self.log_scale_factor is None:
            return out
        return out * torch.exp(self.log_scale * self.log_scale_factor).view(-1, 1, 1)


class ActNormConv2d(FoldedConv2d, DataDependentInit):
    """A convolution and an ActNorm in one.

    Its first batch comes out with zero mean and unit variance.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``; ``context`` is ignored."""
        if self.wants_init():
            self._initialize_from(x)
        return super().forward(x)

    @torch.no_grad()
    def _initialize_from(self, x: Tensor) -> None:
        """Sets bias and scale from the layer's input."""
        assert self.log_scale is not None
        assert self.log_scale_factor is not None
        var, mean = torch.var_mean(self.conv(x).double(), dim=(0, 2, 3), correction=0)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-torch.log(var.sqrt() + 1e-6) / self.log_scale_factor)
        self.mark_initialized()


class BiasConv2d(FoldedConv2d):
    """A convolution with a bias and no normalization, torch's default initialisation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, edge_bias: bool = False
    ) -> None:
        """Makes the layer."""
        super().__init__(in_channels, out_channels, kernel_size, edge_bias, log_scale_factor=None)
        nn.init.kaiming_uniform_(self.conv.weight, a=5**0.5)


class ZeroConv2d(FoldedConv2d):
    """A convolution that starts at zero, its outputs scaled by exp(3 s) (OpenAI's Glow, ``conv2d_zeros``)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, edge_bias: bool = False
    ) -> None:
        """Makes the layer."""
        super().__init__(in_channels, out_channels, kernel_size, edge_bias)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)


class RectifiedAffine(nn.Module):
    """relu(w x + b), one w and b per channel: what batch normalization and a ReLU are once trained."""

    def __init__(self, channels: int) -> None:
        """Makes the layer, w = 1 and b = 0."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return F.relu(x * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1))


class ConvStack(nn.Module):
    """Convolutions that keep height and width, a ReLU before each but the first.

    Attributes:
        names: Names of the layers, which are attributes.
        rectify: A layer before the first, or None.
        dropout: Dropout before the last layer.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], *, dropout: float = 0.0, rectify: nn.Module | None = None
    ) -> None:
        """Makes the network.

        Args:
            layers: The convolutions by name, in order; the names are those in a state dict.
            dropout: Probability of dropping a value of the last hidden layer while training.
            rectify: Applied to the input first.
        """
        super().__init__()
        self.rectify = rectify
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.names = tuple(layers)
        self.dropout = nn.Dropout(dropout)

    def layers(self) -> list[nn.Module]:
        """The convolutions, in order."""
        return [self.get_submodule(name) for name in self.names]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)``, and a context ``(B, K, H, W)`` concatenated to it, to ``(B, O, H, W)``."""
        if context is not None:
            x = torch.cat((x, context.to(x.dtype)), dim=1)
        if self.rectify is not None:
            x = self.rectify(x)
        fast = accelerated(self, x)
        if fast is not None:
            return fast
        x = channels_last(x)
        *hidden, last = self.layers()
        for layer in hidden:
            x = F.relu(layer(x))
        out: Tensor = last(self.dropout(x))
        return out


def conv_net(
    in_channels: int,
    out_channels: int,
    hidden_channels: int,
    context_channels: int = 0,
    normalization: Normalization = "actnorm",
    edge_bias: bool = False,
    rectified_input: bool = False,
) -> ConvStack:
    """Makes conv 3x3, ReLU, conv 1x1, ReLU, zero-initialised conv 3x3: the network of Glow's couplings (appendix B).

    Args:
        in_channels: Channels of the conditioner.
        out_channels: Channels of the parameters.
        hidden_channels: Width of both hidden layers.
        context_channels: Channels of a context of the same height and width, concatenated to the input.
        normalization: ``"actnorm"`` after both hidden convolutions, as in the official code, or ``"none"``.
        edge_bias: Whether the 3x3 convolutions see where the padding is, as in the official code.
        rectified_input: Whether a :class:`RectifiedAffine` comes first.
    """
    if normalization not in get_args(Normalization):
        choices = ", ".join(get_args(Normalization))
        raise ConfigError(f"normalization is {normalization!r}; choose one of {choices}.")
    rectify = RectifiedAffine(in_channels + context_channels) if rectified_input else None
    layer = ActNormConv2d if normalization == "actnorm" else BiasConv2d
    first = layer(in_channels + context_channels, hidden_channels, 3, edge_bias)
    second = layer(hidden_channels, hidden_channels, 1)
    last = ZeroConv2d(hidden_channels, out_channels, 3, edge_bias)
    return ConvStack({"first": first, "second": second, "last": last}, rectify=rectify)


class SqueezedContextNet(nn.Module):
    """An image to features at half its resolution: 2x2 blocks to channels, conv 3x3, ReLU, conv 3x3."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Makes the network."""
        super().__init__()
        self.first = ActNormConv2d(4 * in_channels, out_channels, 3)
        self.second = ActNormConv2d(out_channels, out_channels, 3)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H/2, W/2)``; ``context`` is ignored."""
        out: Tensor = self.second(F.relu(self.first(F.pixel_unshuffle(x, 2))))
        return out


def __getattr__(name: str) -> Any:
    if name != "ConvNet":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "flowzoo.nets.conv.ConvNet is conv_net now, which makes a ConvStack; the old name goes with version 0.3.",
        DeprecationWarning,
        stacklevel=2,
    )
    return conv_net
