"""The contracting network g of a residual block x + g(x)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.layout import channels_last
from flowzoo_residual.spectral import SpectralConv2d, SpectralLayer, SpectralLinear

ActivationName = Literal["lipswish", "elu"]

LIPSWISH_SCALE = 1.1
"""x sigmoid(x) has a slope of at most 1.0999."""


class LipSwish(nn.Module):
    """x sigmoid(softplus(b) x) / 1.1 with b learned, of slope at most 1 for every b (Chen et al., 2019, section 3.3).

    Its second derivative does not vanish where its slope is largest, so gradients of a log-determinant, which contain
    it, do not saturate.
    """

    def __init__(self) -> None:
        """Makes the activation, b = 1/2."""
        super().__init__()
        self.b = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: Tensor, b: Tensor | None = None) -> Tensor:
        """The activation elementwise, of its own b or the one given."""
        return x * torch.sigmoid(F.softplus(self.b if b is None else b) * x) / LIPSWISH_SCALE


class Branch(nn.Module):
    """Layers of spectral norm at most c, an activation of slope at most 1 before each: of Lipschitz constant c^n.

    It is a function of an input and of a list of tensors, so that a backward pass can evaluate it again with the very
    tensors of its forward pass.
    """

    def __init__(
        self, layers: Sequence[SpectralLayer], activation: ActivationName, activated_input: bool = True
    ) -> None:
        """Makes the network.

        Args:
            layers: In order.
            activation: Before each layer.
            activated_input: Whether there is an activation before the first, too.
        """
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activation = activation
        self.activated_input = activated_input
        count = len(layers) if activated_input else len(layers) - 1
        self.activations = nn.ModuleList(LipSwish() for _ in range(count if activation == "lipswish" else 0))

    def tensors(self) -> list[Tensor]:
        """The tensors it is a function of: normalised weights, biases, and the activations' parameters."""
        found: list[Tensor] = [activation.b for activation in self.activations]  # type: ignore[misc]
        for layer in self._layers():
            found += layer()
        return found

    def run(self, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """g(x), the shape of x."""
        x, count = x if torch.is_grad_enabled() else _laid_out(x), len(self.activations)
        slopes = iter(zip(self.activations, tensors, strict=False))
        for index, layer in enumerate(self._layers()):
            if index > 0 or self.activated_input:
                x = self._activated(x, slopes)
            x = layer.run(x, *tensors[count + 2 * index : count + 2 * index + 2])
        return x

    @torch.no_grad()
    def linearised(self, x: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """g(x) without a graph, and the function u' J of batches u, J the Jacobian at x.

        The slopes of the activations are computed once, so that each of many products costs the layers and no more.
        A batch u of fewer items is of the first items of x.
        """
        if any(vars(activation)["_forward_hooks"] for activation in self.activations):
            return self._recorded(x, tensors)
        x, count = _laid_out(x), len(self.activations)
        scales = iter(tensors[:count])
        steps: list[Callable[[Tensor], Tensor]] = []
        for index, layer in enumerate(self._layers()):
            if index > 0 or self.activated_input:
                x, slope = self._activated_with_slope(x, scales)
                steps.append(partial(_times_first, slope))
            weight, bias = tensors[count + 2 * index : count + 2 * index + 2]
            x = layer.run(x, weight, bias)
            steps.append(layer.transposed_map(weight))

        def row(u: Tensor) -> Tensor:
            u = _laid_out(u)
            for step in reversed(steps):
                u = step(u)
            return u

        return x, torch.no_grad()(row)

    def _recorded(self, x: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The same by autograd, for activations of which a hook may make another function."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            start = x.detach().clone().requires_grad_()
            y = self.run(start, [t.detach().clone() for t in tensors])

        def row(u: Tensor) -> Tensor:
            rest = u.new_zeros(len(y) - len(u), *u.shape[1:])
            product: Tensor = torch.autograd.grad(y, start, torch.cat((u, rest)), retain_graph=True)[0]
            return product[: len(u)]

        return y.detach(), row

    def forward(self, x: Tensor) -> Tensor:
        """g(x), the shape of x."""
        return self.run(x, self.tensors())

    def bound(self) -> float:
        """The product of the largest norms that layers may have: no Lipschitz constant exceeds it."""
        return math.prod(layer.coefficient for layer in self._layers())

    def certified_lipschitz(self) -> float:
        """The product of the norms that layers have, computed anew in float64: a Lipschitz constant of g."""
        return math.prod(layer.certified_norm() for layer in self._layers())

    def _layers(self) -> Iterator[SpectralLayer]:
        for layer in self.layers:
            assert isinstance(layer, SpectralLayer)
            yield layer

    def _activated(self, x: Tensor, slopes: Iterator[tuple[nn.Module, Tensor]]) -> Tensor:
        if self.activation == "elu":
            return F.elu(x)
        activation, slope = next(slopes)
        activated: Tensor = activation(x, slope)
        return activated

    def _activated_with_slope(self, x: Tensor, scales: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
        """The activation a, and da/dx."""
        if self.activation == "elu":
            return F.elu(x), x.clamp(max=0).exp()
        scaled = F.softplus(next(scales)) * x
        share = torch.sigmoid(scaled)
        # d/dx x s(c x) = s + c x s (1 - s)
        return x * share / LIPSWISH_SCALE, (share + scaled * share * (1 - share)) / LIPSWISH_SCALE


def _times_first(slope: Tensor, u: Tensor) -> Tensor:
    """U times the slopes of the first items."""
    return u * slope[: len(u)]


def _laid_out(x: Tensor) -> Tensor:
    """Images as convolutions without a graph are fastest; a training step's backward pass gains nothing by it."""
    return channels_last(x) if x.ndim == 4 else x


def convolutional(
    shape: tuple[int, int, int],
    channels: int,
    kernels: Sequence[int],
    activation: ActivationName,
    coefficient: float,
    activated_input: bool,
) -> Branch:
    """A network of convolutions for images ``(C, H, W)``."""
    widths = (shape[0], *(channels,) * (len(kernels) - 1), shape[0])
    layers = [
        SpectralConv2d(widths[i], widths[i + 1], kernel, shape[1:], coefficient)
        for i, kernel in enumerate(kernels)
    ]
    return Branch(layers, activation, activated_input)


def fully_connected(
    dims: int,
    hidden: int,
    layers: int,
    activation: ActivationName,
    coefficient: float,
    activated_input: bool = True,
) -> Branch:
    """A network of linear layers for vectors ``(B, D)``."""
    widths = (dims, *(hidden,) * (layers - 1), dims)
    made = [SpectralLinear(widths[i], widths[i + 1], coefficient) for i in range(layers)]
    return Branch(made, activation, activated_input)
