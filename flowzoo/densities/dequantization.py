"""From integers to reals: noise within the bin of each grey level, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector, Inverse, sum_per_item
from flowzoo.bijectors.chain import Chain
from flowzoo.bijectors.coupling import AffineCoupling
from flowzoo.bijectors.linear import InvertibleConv1x1
from flowzoo.bijectors.partitions import ChannelHalves
from flowzoo.bijectors.reshape import Squeeze, SqueezeOrder
from flowzoo.bijectors.scale_maps import ScaleMap
from flowzoo.densities.base import StandardNormal
from flowzoo.nets.conv import SqueezedContextNet, conv_net
from flowzoo.nets.precision import RunsNetwork

NoiseKind = Literal["uniform", "normal", "none"]

Run = Callable[..., tuple[Tensor, Tensor]]
"""Evaluates a bijector, ``run(bijector, x, context)``; a flow passes its own way."""


def call_bijector(bijector: Any, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Evaluates a bijector plainly."""
    found: tuple[Tensor, Tensor] = bijector(x, context)
    return found


MEDIAN: dict[NoiseKind, float] = {"uniform": 0.5, "normal": 0.0, "none": 0.0}

CENTRAL_MARGIN = 1 / 16
"""How far :meth:`Dequantization.central` stays from a bin's edges, so that no rounding error crosses them."""


class Dequantization(nn.Module):
    """x, an integer, becomes (x + u) / 2^n with u in [0, 1] of density q(u|x).

    Attributes:
        noise: The numbers that :meth:`forward` makes u of: uniform in [0, 1), standard normal, or none.
        is_lower_bound: True if E log p(x + u) / q(u|x) is a bound by a learned q rather than the uniform average.
        fills_bins: True if u stays in [0, 1], so that the density of x + u gives a probability of integers.
    """

    noise: NoiseKind = "uniform"
    is_lower_bound = False
    fills_bins = True

    def forward(self, x: Tensor, noise: Tensor, run: Run = call_bijector) -> tuple[Tensor, Tensor]:
        """Dequantizes.

        Args:
            x: Grey levels 0 .. 2^n - 1 as floats, ``(B, C, H, W)``.
            noise: Noise of kind :attr:`noise`, the shape of ``x``.
            run: How bijectors inside are evaluated.

        Returns:
            u in [0, 1], the shape of ``x``, and log q(u|x) ``(B,)`` in nats.
        """
        raise NotImplementedError

    def central(self, x: Tensor, run: Run = call_bijector) -> Tensor:
        """The u that the median noise gives: one point of each bin, where the model expects its data.

        A bin's middle is not such a point once q(u|x) is learned: there a flow may be hundreds of nats off what it
        has seen, and too steep to be inverted in float32.

        Args:
            x: Grey levels as in :meth:`forward`.
            run: How bijectors inside are evaluated.

        Returns:
            u in (0, 1), at least 1/16 from either end, the shape of ``x``.
        """
        u: Tensor = self(x, torch.full_like(x, MEDIAN[self.noise]), run)[0]
        return u.clamp(CENTRAL_MARGIN, 1 - CENTRAL_MARGIN)


class UniformDequantization(Dequantization):
    """u uniform in [0, 1): log q = 0 (Theis et al., 2016, section 3.1)."""

    def forward(self, x: Tensor, noise: Tensor, run: Run = call_bijector) -> tuple[Tensor, Tensor]:
        """Returns the noise itself and zeros ``(B,)``."""
        return noise, x.new_zeros(x.shape[0])


class NoDequantization(Dequantization):
    """u = 0: for data that are real already, and for flows of integers onto integers.

    Noise that is given all the same is added as it is, so that what has a gradient by the noise has one by the data.
    """

    noise: NoiseKind = "none"
    fills_bins = False

    def forward(self, x: Tensor, noise: Tensor, run: Run = call_bijector) -> tuple[Tensor, Tensor]:
        """Returns the noise, zeros unless others are given, and zeros ``(B,)``."""
        return noise, x.new_zeros(x.shape[0])

    def central(self, x: Tensor, run: Run = call_bijector) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)


class GaussianNoise(Dequantization):
    """u = 1/2 + 2^n s e, e standard normal: a density of noisy images, which has no bits per dimension.

    Noise wider than a bin makes samples that one denoising step improves (TarFlow, section 2.5).
    """

    noise: NoiseKind = "normal"
    fills_bins = False

    def __init__(self, std: float, n_bits: int = 8) -> None:
        """Makes the noise.

        Args:
            std: s, where grey levels span [0, 1].
            n_bits: n.
        """
        super().__init__()
        self.std = std
        self.n_bits = n_bits

    def forward(self, x: Tensor, noise: Tensor, run: Run = call_bijector) -> tuple[Tensor, Tensor]:
        """Returns u and zeros: the density is that of the noisy image itself."""
        return 0.5 + noise * (self.std * 2**self.n_bits), x.new_zeros(x.shape[0])


class VariationalDequantization(Dequantization, RunsNetwork):
    """u = sigmoid(f(e; h(x))), e standard normal, f a conditional flow (Flow++, section 3.1).

    log q(u|x) = log N(e) - log|det df/de| + sum softplus(w) + softplus(-w) with w = f(e).
    """

    noise: NoiseKind = "normal"
    is_lower_bound = True

    def __init__(self, bijector: Bijector, context_net: nn.Module, n_bits: int) -> None:
        """Makes the dequantizer.

        Args:
            bijector: Conditional flow f on ``(B, C, H, W)``, noise to logits of u.
            context_net: ``context_net(x, None)`` for x scaled to [-1/2, 1/2], ``(B, C, H, W)``, to the context of f.
            n_bits: Bits per grey level.
        """
        super().__init__()
        self.bijector = bijector
        self.context_net = context_net
        self.n_bits = n_bits
        self.base = StandardNormal()

    def forward(self, x: Tensor, noise: Tensor, run: Run = call_bijector) -> tuple[Tensor, Tensor]:
        """Dequantizes with learned noise; see :class:`Dequantization`."""
        scaled = x / (2**self.n_bits - 1) - 0.5
        context = self.run_network(self.context_net, scaled, None)
        w, log_det = run(self.bijector, noise, context)
        log_sigmoid_det = -sum_per_item(F.softplus(w) + F.softplus(-w))
        log_q = self.base.log_prob(noise.flatten(1)) - log_det - log_sigmoid_det
        return torch.sigmoid(w), log_q


def squeezed_dequantization(
    couplings: Sequence[Bijector],
    context_net: nn.Module,
    n_bits: int,
    *,
    squeeze_order: SqueezeOrder = "channel",
    squeezes: int = 1,
) -> VariationalDequantization:
    """A variational dequantizer whose flow acts on squeezed noise.

    Args:
        couplings: The bijectors between squeezing the noise and taking that back.
        context_net: An image to the context of the couplings.
        n_bits: Bits per grey level.
        squeeze_order: Channel order of the squeezes.
        squeezes: How many there are.
    """
    into = [Squeeze(squeeze_order) for _ in range(squeezes)]
    back = [Inverse(Squeeze(squeeze_order)) for _ in range(squeezes)]
    return VariationalDequantization(Chain(*into, *couplings, *back), context_net, n_bits)


def convolutional_dequantization(
    image_shape: tuple[int, int, int], n_bits: int, depth: int, hidden_channels: int
) -> VariationalDequantization:
    """A small variational dequantizer: affine couplings and 1x1 convolutions on the squeezed noise.

    Args:
        image_shape: ``(C, H, W)`` with even H and W.
        n_bits: Bits per grey level.
        depth: Number of couplings.
        hidden_channels: Width of their networks and of the context.
    """
    channels = 4 * image_shape[0]
    steps: list[Bijector] = []
    for _ in range(depth):
        net = conv_net(channels // 2, channels, hidden_channels, context_channels=hidden_channels)
        coupling = AffineCoupling(ChannelHalves(), net, ScaleMap("soft-tanh", channels // 2))
        steps += [InvertibleConv1x1(channels), coupling]
    return squeezed_dequantization(steps, SqueezedContextNet(image_shape[0], hidden_channels), n_bits)
