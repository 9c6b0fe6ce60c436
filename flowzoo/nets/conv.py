"""The convolutional network inside Glow's couplings and its layers."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.errors import ConfigError
from flowzoo.nets.folding import Folds
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.parameters import drawn_normal
from flowzoo.nets.rectified import Kernel, computed_in, rectified_convolutions, watched

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
        self.weight = drawn_normal((out_channels, in_channels, kernel_size, kernel_size), std=0.05)
        self.edge_weight: nn.Parameter | None = None
        if edge_bias and kernel_size > 1:
            self.edge_weight = drawn_normal((out_channels, 1, kernel_size, kernel_size), std=0.05)
        self.indicator_channel = self.edge_weight is not None and in_channels < out_channels
        self._outside: tuple[object, Tensor] | None = None

    def outside(self, size: torch.Size) -> Tensor | None:
        """Which taps are outside an image of this ``(H, W)`` at each pixel, ``(H W, k k)``, if a map tells so."""
        edge = self.edge_weight
        if edge is None or self.indicator_channel:
            return None
        key = (size, edge.dtype, edge.device)
        if self._outside is None or self._outside[0] != key:
            inside = torch.ones(1, 1, *size, dtype=edge.dtype, device=edge.device)
            self._outside = key, 1 - F.unfold(inside, edge.shape[-2:], padding=self.padding)[0].t()
        return self._outside[1]


class FoldedConv2d(Folds):
    """A convolution with a bias, and whatever scales its output, in one kernel that evaluation computes once.

    Attributes:
        conv: The convolution itself.
        bias: ``(O,)``.
        log_scale: Log-scales of the outputs divided by the factor, ``(O,)``, or None.
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
        return run_rectified(x, (self,))

    def raw(self) -> tuple[Tensor, ...]:
        """Bias, weight, edge weight and log-scale, without those that are not there; kernels channels last."""
        conv = self.conv
        kernels = [w.permute(0, 2, 3, 1) for w in (conv.weight, conv.edge_weight) if w is not None]
        return self.bias, *kernels, *(() if self.log_scale is None else (self.log_scale,))

    def constants(self) -> Hashable:
        """What tells apart layers of the same shapes."""
        return self.conv.edge_weight is None, self.log_scale_factor

    def fold(self, *raw: Tensor) -> tuple[Tensor, ...]:
        """Stacks of parameters to stacks of bias ``(K, O)``, weight ``(K, O, I, k, k)`` and edge ``(K, O, k k)``."""
        bias, *kernels = raw
        scale = None
        if self.log_scale is not None and self.log_scale_factor is not None:
            scale = torch.exp(kernels.pop() * self.log_scale_factor)
        if self.conv.indicator_channel:
            # Zero padding marks the outside of a channel of ones: edge at 1 - ones is a bias less edge at ones.
            weight, edge = kernels
            bias = bias + edge.sum(dim=(2, 3, 4))
            kernels = [torch.cat((weight, -edge), dim=-1)]
        if scale is not None:
            bias, kernels = bias * scale, [kernel * scale[:, :, None, None, None] for kernel in kernels]
        weight, *edges = kernels
        return bias, weight.permute(0, 1, 4, 2, 3), *(edge.flatten(2) for edge in edges)

    def kernel(self, x: Tensor) -> Kernel:
        """The folded kernel for such inputs."""
        size, dtype = x.shape[2:], computed_in(x)
        parameters = (self.conv.weight, self.conv.edge_weight, self.bias, self.log_scale)
        if not self.keeps(parameters):
            return self._kernel(size, *self.folded())
        return self.cached(
            (size, dtype),
            parameters,
            lambda: self._kernel(size, *self.folded()).to(dtype).packed(len(x), size),
        )

    def _kernel(self, size: torch.Size, bias: Tensor, weight: Tensor, edge: Tensor | None = None) -> Kernel:
        conv = self.conv
        outside = None if edge is None else conv.outside(size)
        return Kernel(weight, bias, edge, outside, conv.padding, conv.indicator_channel)


class ActNormConv2d(FoldedConv2d, DataDependentInit):
    """A convolution and an ActNorm in one: actnorm(conv(x)) as a convolution with scaled weights.

    Its first batch comes out with zero mean and unit variance.
    """

    @torch.no_grad()
    def initialize_from(self, x: Tensor) -> None:
        """Sets bias and scale from the layer's input ``(B, C, H, W)``."""
        assert self.log_scale is not None
        assert self.log_scale_factor is not None
        # Neutral, until they are set from what comes out.
        self.bias.zero_()
        self.log_scale.zero_()
        h = rectified_convolutions(x, (self.kernel(x),))
        var, mean = torch.var_mean(h.double(), dim=(0, 2, 3), correction=0)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-torch.log(var.sqrt() + 1e-6) / self.log_scale_factor)
        self.mark_initialized()


def run_rectified(x: Tensor, layers: tuple[FoldedConv2d, ...]) -> Tensor:
    """The layers one after the other with ReLUs between them: ``(B, C, H, W)`` to ``(B, O, H, W)``."""
    for depth, layer in enumerate(layers):
        if isinstance(layer, ActNormConv2d) and layer.wants_init():
            layer.initialize_from(run_rectified(x, layers[:depth]).relu() if depth else x)
    if len(layers) > 1 and watched(layers):
        for layer in layers[:-1]:
            x = layer(x).relu()
        out: Tensor = layers[-1](x)
        return out
    return rectified_convolutions(x, [layer.kernel(x) for layer in layers])


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
        return run_rectified(x, (self.first, self.second, self.last))


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
        return run_rectified(squeezed, (self.first, self.second))
