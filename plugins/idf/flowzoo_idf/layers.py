"""The bijectors of an integer discrete flow.

They map reals, but only by what lies between integers: x = k + u with k integer and u in [0, 1) becomes k' + u until
the last step, which spreads u over the mass of k'. The density of k + u is therefore the same for every u and equal to
the probability of k, so that an integer discrete flow is a flow like any other and its bits per dimension are exact.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flowzoo.bijectors import Bijector, Squeeze, sum_per_item
from flowzoo_idf.config import IDFConfig
from flowzoo_idf.mixture import IntegerMixture
from flowzoo_idf.networks import CouplingNetwork
from flowzoo_idf.relative import COEFFICIENT_LIMIT, UNITS, nearest_sum, pairs

if TYPE_CHECKING:
    from flowzoo_idf.integers import IntegerFlow

__all__ = ["IntegerCoupling", "IntegerDiscreteFlow", "IntegerSplit", "IntegerTop"]


def rounded(x: Tensor, through: bool) -> Tensor:
    """The nearest integers; ``through`` gives them the gradient of x (Hoogeboom et al. 2019, section 3.2)."""
    return x + (torch.round(x) - x).detach() if through else torch.round(x)


def floored(x: Tensor, through: bool) -> Tensor:
    """The integers at or below x; ``through`` gives them the gradient of x."""
    return x + (torch.floor(x) - x).detach() if through else torch.floor(x)


def centred(x: Tensor, window: int, through: bool) -> Tensor:
    """What networks see of x: its integers in quarters of the window, from -2 to 2.

    Black is not zero, so that a network learns from black surroundings too.
    """
    return floored(x, through) / (window / 4) - 2


def wrapped(x: Tensor, window: int) -> Tensor:
    """X moved into [0, W) by a multiple of W."""
    return x - window * torch.floor(x / window).detach()


class IntegerCoupling(nn.Module):
    """b becomes b + round(t(floor a)), modulo the window, so that they stay grey levels (equation 5).

    Attributes:
        net: Its output is in grey levels, so that training starts with small translations: large ones wrap around.
    """

    def __init__(self, net: CouplingNetwork, window: int) -> None:
        """Makes the coupling."""
        super().__init__()
        self.net = net
        self.window = window

    def translation(self, a: Tensor) -> Tensor:
        """Integers to add to the other channels."""
        return rounded(self.net(centred(a, self.window, self.training)), self.training)


class IntegerSplit(nn.Module):
    """Couplings between the channels that stay and those that leave, and the distribution of those that leave."""

    def __init__(self, kept: int, out: int, config: IDFConfig) -> None:
        """Makes the split.

        Args:
            kept: Channels that stay.
            out: Channels that leave.
            config: Number of couplings and shape of the networks.
        """
        super().__init__()
        self.kept = kept
        self.out = out
        self.window = 2**config.n_bits
        self.mixtures = config.mixtures
        shapes = [(kept, out) if i % 2 else (out, kept) for i in range(config.couplings)]
        self.couplings = nn.ModuleList(
            IntegerCoupling(CouplingNetwork(a, b, config.features, config.coupling_depth), self.window)
            for a, b in shapes
        )
        self.relative = config.means == "relative"
        first = (
            relative_start(out, config.mixtures) if self.relative else absolute_start(out, config.mixtures)
        )
        self.prior = CouplingNetwork(kept, len(first), config.features, config.depth)
        self.prior.start_at(first)

    def distribution(self, kept: Tensor, out: Tensor) -> IntegerMixture:
        """The distribution of what leaves given what stays, ``(B, C, H, W)``.

        Args:
            kept: What stays.
            out: What leaves. With relative means, the distribution of a channel depends on those before it.
        """
        return self._mixture(self.prior(centred(kept, self.window, self.training)), kept, out)

    def _mixture(self, raw: Tensor, kept: Tensor, out: Tensor) -> IntegerMixture:
        if not self.relative:
            return mixture_of(raw, self.mixtures, self.window)
        logits, means, log_scales, coefficients = parts_of(raw, self.mixtures, self.out)
        base = nearest_sum(floored(kept, self.training), self.out) / 4
        above = floored(out, self.training) - base
        coefficients = coefficients.clamp(-COEFFICIENT_LIMIT, COEFFICIENT_LIMIT)
        shifted = list((base + means * (self.window / UNITS)).unbind(2))
        for index, (later, earlier) in enumerate(pairs(self.out)):
            shifted[later] = shifted[later] + coefficients[:, :, index] * above[:, earlier]
        log_scales = log_scales + math.log(self.window / 8)
        return IntegerMixture(logits, torch.stack(shifted, 2), log_scales, self.window)

    def from_logistic(self, kept: Tensor, z: Tensor) -> Tensor:
        """What leaves, from its standard logistic latent and what stays."""
        raw = self.prior(centred(kept, self.window, self.training))
        out = torch.zeros_like(z)
        for channel in range(self.out if self.relative else 1):
            # Every channel that came before is final; the later ones are not looked at.
            found = self._mixture(raw, kept, out).from_logistic(z)
            out = torch.cat((out[:, :channel], found[:, channel:]), dim=1)
        return out

    def translate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What stays and what leaves of ``(B, C, H, W)``, translated."""
        kept, out = x[:, : self.kept], x[:, self.kept :]
        for index, coupling in enumerate(self.couplings):
            assert isinstance(coupling, IntegerCoupling)
            if index % 2:
                out = wrapped(out + coupling.translation(kept), self.window)
            else:
                kept = wrapped(kept + coupling.translation(out), self.window)
        return kept, out

    def translate_back(self, kept: Tensor, out: Tensor) -> Tensor:
        """The inverse of :meth:`translate`."""
        for index, coupling in reversed(list(enumerate(self.couplings))):
            assert isinstance(coupling, IntegerCoupling)
            if index % 2:
                out = wrapped(out - coupling.translation(kept), self.window)
            else:
                kept = wrapped(kept - coupling.translation(out), self.window)
        return torch.cat((kept, out), dim=1)


class IntegerTop(nn.Module):
    """The distribution of what is left after the last level: a mixture for every value.

    Attributes:
        gain: Factor on the learned values, which makes them learn as fast as the sums that networks are.
    """

    def __init__(self, shape: tuple[int, int, int], window: int, mixtures: int, gain: int) -> None:
        """Makes the distribution of ``(B, C, H, W)``."""
        super().__init__()
        self.window = window
        self.mixtures = mixtures
        self.gain = gain
        channels, height, width = shape
        first = absolute_start(channels, mixtures).view(-1, 1, 1)
        self.raw = nn.Parameter(first.repeat(1, height, width) / self.gain)

    def forward(self) -> Tensor:
        """The parameters of the distribution, ``(1, 3 K C, H, W)``."""
        return self.gain * self.raw[None]

    def distribution(self) -> IntegerMixture:
        """The distribution, for a batch of any size."""
        return mixture_of(self(), self.mixtures, self.window)


def absolute_start(channels: int, mixtures: int) -> Tensor:
    """Parameters ``(3 K C,)`` to begin with: equal logistics spread over the grey levels.

    Means are in quarters of the window, and scales are half the distance of two.
    """
    means = (torch.arange(mixtures) + 0.5) * (4 / mixtures)
    return torch.cat((torch.zeros(mixtures), means, torch.zeros(mixtures))).repeat_interleave(channels)


def relative_start(channels: int, mixtures: int) -> Tensor:
    """Parameters ``(3 K C + K P,)`` to begin with, P pairs of channels.

    The means are within a few hundredths of the window around what is known, scales a twenty-fifth of it, and a channel
    is expected as far above its surroundings as the one before it.
    """
    means = torch.arange(mixtures) - (mixtures - 1) / 2
    log_scales = torch.full((mixtures,), -1.2)
    coefficients = torch.tensor([float(later == earlier + 1) for later, earlier in pairs(channels)])
    each = torch.cat((torch.zeros(mixtures), means, log_scales)).repeat_interleave(channels)
    return torch.cat((each, coefficients.repeat(mixtures)))


def parts_of(raw: Tensor, mixtures: int, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, means, log-scales ``(K, B, C, H, W)`` and coefficients ``(K, B, P, H, W)`` of a network's output."""
    each, coefficients = raw.tensor_split([3 * mixtures * channels], dim=1)
    logits, means, log_scales = (
        part.unflatten(1, (mixtures, channels)).transpose(0, 1) for part in each.chunk(3, dim=1)
    )
    count = channels * (channels - 1) // 2
    return logits, means, log_scales, coefficients.unflatten(1, (mixtures, count)).transpose(0, 1)


def mixture_of(raw: Tensor, mixtures: int, window: int) -> IntegerMixture:
    """The mixture that a network's output ``(B, 3 K C, H, W)`` describes."""
    batch, parameters, height, width = raw.shape
    split = raw.view(batch, 3, mixtures, parameters // (3 * mixtures), height, width).permute(
        1, 2, 0, 3, 4, 5
    )
    return IntegerMixture(split[0], split[1] * (window / 4), split[2] + math.log(window / 8), window)


class IntegerDiscreteFlow(Bijector):
    """z = logistic(F(x)): translations of integers level by level, then each integer's bin onto its mass.

    forward: v in [0, 1)^D is scaled to grey levels; at each level x is squeezed and split; the couplings add integers
    modulo the window (log|det| = 0); what leaves goes through its distribution function given what stays.
    log|det| = D n log 2 + sum log P(k) - sum log dF (Hoogeboom et al. 2019, equations 5 to 8).

    In training mode rounding passes gradients on unchanged and only log P has any: surrogates. In eval mode gradients
    are those of the map.
    """

    def __init__(
        self,
        splits: list[list[IntegerSplit]],
        top: IntegerTop,
        image_shape: tuple[int, int, int],
        n_bits: int,
    ) -> None:
        """Makes the flow.

        Args:
            splits: The splits of each level.
            top: The distribution of what is left.
            image_shape: ``(C, H, W)``.
            n_bits: Bits of each grey level; the window is 2^n.
        """
        super().__init__()
        self.window = 2**n_bits
        self.image_shape = image_shape
        self.levels = nn.ModuleList(nn.ModuleList(level) for level in splits)
        self.top = top
        self.squeeze = Squeeze("checkerboard")

    def integer_model(self, batch_size: int = 16) -> IntegerFlow:
        """The flow in integer arithmetic, for ``flowzoo.codec``; the networks see ``batch_size`` images at a time."""
        from flowzoo_idf.integers import IntegerFlow

        return IntegerFlow(self, batch_size)

    def splits(self, level: nn.Module) -> list[IntegerSplit]:
        """The splits of a level in their order."""
        return [split for split in level.children() if isinstance(split, IntegerSplit)]

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = x * self.window
        latents: list[Tensor] = []
        terms: list[Tensor] = []
        for level in self.levels:
            x, _ = self.squeeze(x)
            for split in self.splits(level):
                x, out = split.translate(x)
                self._leave(out, split.distribution(x, out), latents, terms)
        self._leave(x, self.top.distribution(), latents, terms)
        scale = math.prod(self.image_shape) * math.log(self.window)
        return torch.cat(latents, dim=1), torch.stack(terms).sum(0) + scale

    def _leave(
        self, x: Tensor, distribution: IntegerMixture, latents: list[Tensor], terms: list[Tensor]
    ) -> None:
        log_prob = distribution.log_prob(floored(x, self.training))
        if self.training:
            with torch.no_grad():
                z, log_slope = distribution.to_logistic(x, log_prob)
            log_slope = log_slope + (log_prob - log_prob.detach())
        else:
            z, log_slope = distribution.to_logistic(x, log_prob)
        latents.append(z.flatten(1))
        terms.append(sum_per_item(log_slope))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        sizes, shapes = self._sizes()
        parts = [
            part.reshape(len(z), *shape) for part, shape in zip(z.split(sizes, dim=1), shapes, strict=True)
        ]
        x = self.top.distribution().from_logistic(parts.pop())
        for level in reversed(list(self.levels)):
            for split in reversed(self.splits(level)):
                out = split.from_logistic(x, parts.pop())
                x = split.translate_back(x, out)
            x, _ = self.squeeze.inverse(x)
        x = x / self.window
        return x, -self._forward(x, context)[1]

    def _sizes(self) -> tuple[list[int], list[tuple[int, int, int]]]:
        """Elements and shapes of the parts of the latent."""
        _, height, width = self.image_shape
        shapes = []
        for level in self.levels:
            height, width = height // 2, width // 2
            shapes += [(split.out, height, width) for split in self.splits(level)]
            kept = self.splits(level)[-1].kept
        shapes.append((kept, height, width))
        return [c * h * w for c, h, w in shapes], shapes
