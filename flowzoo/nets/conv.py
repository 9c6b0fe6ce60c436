"""The convolutional network inside Glow's couplings and its layers."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.errors import ConfigError
from flowzoo.nets.caching import CachesInEval
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.parameters import drawn_normal

Normalization = Literal["actnorm", "none"]


class Kernel(NamedTuple):
    """What a convolution comes to once everything linear around it is folded in.

    Attributes:
        weight: ``(O, I, k, k)``; with an indicator channel ``I`` counts it.
        bias: ``(O,)`` or None.
        edge_map: ``(1, O, H, W)`` to be added to the output, or None.
    """

    weight: Tensor
    bias: Tensor | None
    edge_map: Tensor | None


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

    def fold(self, scale: Tensor | None, bias: Tensor | None, size: torch.Size) -> Kernel:
        """The kernel for images of this ``(H, W)``, its outputs times ``scale`` ``(O,)`` plus ``bias`` ``(O,)``."""
        weight: Tensor = self.weight
        edge: Tensor | None = self.edge_weight
        if edge is not None and self.indicator_channel:
            # Zero padding marks the outside of a channel of ones: edge at 1 - ones is a bias less edge at ones.
            weight = torch.cat((weight, -edge), dim=1)
            inside = edge.sum(dim=(1, 2, 3))
            inside = inside if scale is None else inside * scale
            bias = inside if bias is None else bias + inside
            edge = None
        if scale is not None:
            weight = weight * scale.view(-1, 1, 1, 1)
            edge = None if edge is None else edge * scale.view(-1, 1, 1, 1)
        return Kernel(weight, bias, None if edge is None else self._edge_map(edge, size))

    def forward(self, x: Tensor, kernel: Kernel) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)`` with a folded kernel."""
        if self.indicator_channel:
            x = torch.cat((x, x.new_ones(()).expand(x.shape[0], 1, *x.shape[2:])), dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        out = F.conv2d(x, kernel.weight, kernel.bias, padding=self.padding)
        return out if kernel.edge_map is None else out + kernel.edge_map.to(out.dtype)

    def _edge_map(self, edge: Tensor, size: torch.Size) -> Tensor:
        """The indicator's convolution, ``(1, O, H, W)``, as a product of two small matrices."""
        key = (size, edge.dtype, edge.device)
        if self._outside is None or self._outside[0] != key:
            inside = torch.ones(1, 1, *size, dtype=edge.dtype, device=edge.device)
            self._outside = key, 1 - F.unfold(inside, edge.shape[-2:], padding=self.padding)[0].t()
        out = self._outside[1] @ edge.flatten(1).t()
        return out.view(1, *size, -1).permute(0, 3, 1, 2)


class FoldedConv2d(CachesInEval):
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
        size = x.shape[2:]
        parameters = (self.conv.weight, self.conv.edge_weight, self.bias, self.log_scale)
        kernel = self.cached(size, parameters, lambda: self._fold(size))
        out: Tensor = self.conv(x, kernel)
        return out

    def _fold(self, size: torch.Size) -> Kernel:
        if self.log_scale is None or self.log_scale_factor is None:
            return self.conv.fold(None, self.bias, size)
        scale = torch.exp(self.log_scale * self.log_scale_factor)
        return self.conv.fold(scale, self.bias * scale, size)


class ActNormConv2d(FoldedConv2d, DataDependentInit):
    """A convolution and an ActNorm in one: actnorm(conv(x)) as a convolution with scaled weights.

    Its first batch comes out with zero mean and unit variance.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``; ``context`` is ignored."""
        if self.wants_init():
            self._initialize_from(self.conv(x, self.conv.fold(None, None, x.shape[2:])))
        return super().forward(x)

    @torch.no_grad()
    def _initialize_from(self, h: Tensor) -> None:
        assert self.log_scale is not None
        assert self.log_scale_factor is not None
        var, mean = torch.var_mean(h.double(), dim=(0, 2, 3), correction=0)
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
