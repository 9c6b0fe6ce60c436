"""The convolutional network inside Glow's couplings and its layers."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.errors import ConfigError
from flowzoo.nets.caching import CachesInEval, watched
from flowzoo.nets.folding import Folds
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.kernels import Kernel, are_many
from flowzoo.nets.parameters import drawn_normal
from flowzoo.nets.rectified import (
    RectifiedNetwork,
    computed_in,
    rectified_convolutions,
)

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
        """All but the weight, the largest: bias, edge weight and log-scale, without those that are not there."""
        return tuple(t for t in (self.bias, self.conv.edge_weight, self.log_scale) if t is not None)

    def constants(self) -> Hashable:
        """What tells apart layers of the same shapes."""
        conv = self.conv
        return conv.edge_weight is None, conv.indicator_channel, self.log_scale_factor

    def fold(self, *raw: Tensor) -> tuple[Tensor, ...]:
        """Stacks of parameters to stacks of bias ``(K, O)``, scale ``(K, O)``, and what the edge weight came to.

        That is ``(K, O, k k)`` for a map, ``(K, O, 1, k, k)`` for an indicator.
        """
        bias, *others = raw
        folded = []
        if self.log_scale is not None and self.log_scale_factor is not None:
            folded.append(torch.exp(others.pop() * self.log_scale_factor))
        if others:
            (edge,) = others
            if self.conv.indicator_channel:
                # Zero padding marks the outside of a channel of ones: edge at 1 - ones is a bias less edge at ones.
                bias, edge = bias + edge.sum(dim=(2, 3, 4)), -edge
            else:
                edge = edge.flatten(2)
            folded.append(
                edge * folded[0].view(*folded[0].shape, *(1,) * (edge.dim() - 2)) if folded else edge
            )
        return bias * folded[0] if self.log_scale is not None else bias, *folded

    def kernel(self, x: Tensor, dtype: torch.dtype) -> Kernel:
        """The kernel for such inputs; in evaluation in the dtype that it is used in."""
        size = x.shape[2:]
        if self.together is not None:
            return self._kernel(size, *self.together)
        return self.cached(
            (size, dtype, are_many(x)),
            self.parameters,
            lambda: self._kernel(size, *self.folded()).merged(dtype).packed(len(x), size),
            lambda: self._kernel(size, *self.folded()),
        )

    def _kernel(self, size: torch.Size, bias: Tensor, *others: Tensor) -> Kernel:
        conv = self.conv
        weight = conv.weight
        scale, *edges = others if self.log_scale_factor is not None else (None, *others)
        if not edges:
            return Kernel(weight, bias, scale, padding=conv.padding)
        if conv.indicator_channel:
            return Kernel(weight, bias, scale, ones=edges[0], padding=conv.padding)
        return Kernel(weight, bias, scale, edges[0], None, conv.outside(size), conv.padding)


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
        h = rectified_convolutions(x, (self.kernel(x, computed_in(x)),))
        var, mean = torch.var_mean(h.double(), dim=(0, 2, 3), correction=0)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-torch.log(var.sqrt() + 1e-6) / self.log_scale_factor)
        self.mark_initialized()


def run_rectified(x: Tensor, layers: tuple[FoldedConv2d, ...]) -> Tensor:
    """The layers one after the other with ReLUs between them: ``(B, C, H, W)`` to ``(B, O, H, W)``."""
    initialize_rectified(x, layers)
    if len(layers) > 1 and watched(layers):
        for layer in layers[:-1]:
            x = layer(x).relu()
        out: Tensor = layers[-1](x)
        return out
    dtype = computed_in(x)
    return rectified_convolutions(x, [layer.kernel(x, dtype) for layer in layers])


def initialize_rectified(x: Tensor, layers: tuple[FoldedConv2d, ...]) -> None:
    """Initializes such layers from data, those that want it."""
    for depth, layer in enumerate(layers):
        if isinstance(layer, ActNormConv2d) and layer.wants_init():
            layer.initialize_from(run_rectified(x, layers[:depth]).relu() if depth else x)


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


class ConvNet(RectifiedNetwork, CachesInEval):
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
        if torch.is_grad_enabled():
            self.forget()
        if context is not None:
            x = torch.cat((x, context), dim=1)
        if self.rectify is not None:
            x = self.rectify(x)
        return run_rectified(x, (self.first, self.second, self.last))

    def kernels(self, x: Tensor, dtype: torch.dtype) -> list[Kernel] | None:
        """See :class:`RectifiedNetwork`; layers that initialize themselves have to be called."""
        key = (x.shape[2:], dtype, are_many(x))
        known: list[Kernel] | None = self.known(key)
        if known is not None:
            return known
        layers = (self.first, self.second, self.last)
        if self.rectify is not None or "forward" in self.__dict__ or watched((self, *layers)):
            return None
        if any(isinstance(layer, ActNormConv2d) and layer.wants_init() for layer in layers):
            return None

        def kernels() -> list[Kernel]:
            return [layer.kernel(x, dtype) for layer in layers]

        return self.cached(key, self.parameters, kernels)


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
