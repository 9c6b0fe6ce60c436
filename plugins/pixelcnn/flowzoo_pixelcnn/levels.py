"""Conditional distributions of a pixel's grey levels: histograms, and mixtures of logistics cut into levels."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_SCALES = (-9.0, 5.0)
"""Of logistics on [0, 1]: from a thirtieth of a grey level of 8 bits to what is flat; beyond, gradients have no use."""


class GreyLevels(Protocol):
    """The distribution of the grey levels ``(..., C)`` of pixels."""

    def of(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each level given the channels before, and probability of all levels below it.

        Args:
            levels: ``(..., C)``, whole numbers in the dtype of the parameters.

        Returns:
            Two tensors like ``levels``.
        """
        ...

    def find(self, z: Tensor) -> Tensor:
        """The levels in which the distribution functions take the values z, ``(..., C)``."""
        ...


class HistogramLevels:
    """A probability for each level of the one channel.

    Args:
        raw: Logits ``(..., K)``.
        floor: Share of the uniform distribution.
    """

    def __init__(self, raw: Tensor, floor: float) -> None:
        self.floor = _Floor(floor, raw.shape[-1])
        self.log_p = F.log_softmax(raw, dim=-1)

    def of(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each level, and probability of all levels below it; ``(..., 1)`` both."""
        index = levels.long()
        p = self.log_p.exp()
        below = (p.cumsum(-1) - p).gather(-1, index)
        return self.floor.log(self.log_p.gather(-1, index)), self.floor.below(below, levels)

    def find(self, z: Tensor) -> Tensor:
        """The levels in which the distribution functions take the values z, ``(..., 1)``."""
        every = torch.arange(1, self.floor.count, dtype=z.dtype, device=z.device)
        below = self.floor.below(self.log_p.exp().cumsum(-1)[..., :-1], every)
        return (z >= below).sum(-1, keepdim=True).to(z.dtype)


class _Floor:
    """The share that a uniform distribution has in all others: no level has less than floor / K."""

    def __init__(self, floor: float, count: int) -> None:
        self.floor, self.count = floor, count

    def log(self, log_p: Tensor) -> Tensor:
        """Log-probabilities, mixed."""
        uniform = torch.full_like(log_p, self.floor / self.count).log()
        return torch.logaddexp(log_p + torch.log1p(torch.full_like(log_p, -self.floor)), uniform)

    def below(self, below: Tensor, level: Tensor) -> Tensor:
        """Probabilities of all levels below these, mixed."""
        return (1 - self.floor) * below + self.floor * level / self.count


def parameters_per_pixel(channels: int, components: int) -> int:
    """How many numbers describe the distribution of a pixel: weights, means, scales, dependences on channels before."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


class LogisticLevels:
    """p(level of channel c | channels before c), from raw parameters (Salimans et al., 2017, sections 2.1 and 2.2).

    The mean of a component depends linearly on the channels before; the weights of the components are those given
    these channels, so that the product over channels is one mixture over pixels. The lowest and the highest level take
    the tails. A uniform distribution has a small share, and no level less than that.

    Args:
        raw: ``(..., P)``.
        channels: C.
        count: K, the number of levels.
        floor: Share of the uniform distribution.
    """

    def __init__(self, raw: Tensor, channels: int, count: int, floor: float) -> None:
        components = raw.shape[-1] // parameters_per_pixel(channels, 1)
        pairs = channels * (channels - 1) // 2
        sizes = [1, channels, channels, pairs]
        logits, means, log_scales, slopes = raw.unflatten(-1, (-1, components)).split(sizes, dim=-2)
        self.channels, self.count, self.floor = channels, count, _Floor(floor, count)
        # Zero parameters give components side by side over [0, 1], each about as wide as their distance.
        places = (torch.arange(components, dtype=raw.dtype, device=raw.device) + 0.5) / components
        self.means = places + means
        self.log_scales = (log_scales - 2.0).clamp(*LOG_SCALES)
        self.slopes = torch.tanh(slopes)
        self.log_weights = F.log_softmax(logits.squeeze(-2), dim=-1)

    def of(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each level, and probability of all below it.

        Args:
            levels: ``(..., C)``, whole numbers in the dtype of the parameters.

        Returns:
            Two tensors like ``levels``.
        """
        found = []
        log_weights = self.log_weights
        for c, level in enumerate(levels.unbind(-1)):
            mean, log_scale = self._component(c, levels)
            lower, upper = self._edges(level)
            inside = _log_mass(lower, upper, mean, log_scale)
            log_p = torch.logsumexp(log_weights + inside, dim=-1)
            edge = (level / self.count).unsqueeze(-1)
            below = (log_weights.exp() * _cdf(edge, mean, log_scale)).sum(-1).where(level > 0, 0.0)
            found.append((self.floor.log(log_p), self.floor.below(below, level)))
            log_weights = F.log_softmax(log_weights + inside, dim=-1)
        log_p, below = (torch.stack(parts, dim=-1) for parts in zip(*found, strict=True))
        return log_p, below

    def find(self, z: Tensor) -> Tensor:
        """The levels in which the distribution functions take the values z, ``(..., C)``."""
        log_weights = self.log_weights
        levels = torch.zeros_like(z)
        every = torch.arange(1, self.count, dtype=z.dtype, device=z.device)
        for c in range(self.channels):
            mean, log_scale = self._component(c, levels)
            at = _cdf(every / self.count, mean.unsqueeze(-1), log_scale.unsqueeze(-1))  # (..., M, K - 1)
            below = self.floor.below((log_weights.exp().unsqueeze(-1) * at).sum(-2), every)
            level = (z[..., c, None] >= below).sum(-1).to(z.dtype)
            levels = torch.cat((levels[..., :c], level.unsqueeze(-1), levels[..., c + 1 :]), dim=-1)
            inside = _log_mass(*self._edges(level), mean, log_scale)
            log_weights = F.log_softmax(log_weights + inside, dim=-1)
        return levels

    def _component(self, c: int, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-scales ``(..., M)`` of a channel, given the levels of those before it."""
        mean, first = self.means[..., c, :], c * (c - 1) // 2
        for b in range(c):
            value = levels[..., b, None] / (self.count - 1) - 0.5
            mean = mean + self.slopes[..., first + b, :] * value
        return mean, self.log_scales[..., c, :]

    def _edges(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Where a level begins and ends, ``(..., 1)``; the first begins and the last ends at infinity."""
        lower = torch.where(level <= 0, -torch.inf, level / self.count)
        upper = torch.where(level >= self.count - 1, torch.inf, (level + 1) / self.count)
        return lower.unsqueeze(-1), upper.unsqueeze(-1)


def _cdf(edge: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    return torch.sigmoid((edge - mean) * torch.exp(-log_scale))


def _log_mass(lower: Tensor, upper: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log(s(b) - s(a)) of standardized ends a < b, as log s(b) + log s(-a) + log(1 - e^(a-b)); ends may be infinite."""
    inverse_scale = torch.exp(-log_scale)
    open_ended = torch.isinf(lower) | torch.isinf(upper)
    # What is not chosen must not overflow either: gradients pass through both branches.
    a = (torch.where(torch.isinf(lower), 0.0, lower) - mean) * inverse_scale
    b = (torch.where(torch.isinf(upper), 1.0, upper) - mean) * inverse_scale
    width = torch.where(open_ended, 1.0, upper - lower) * inverse_scale
    log_below = torch.where(torch.isinf(upper), 0.0, F.logsigmoid(b))
    log_above = torch.where(torch.isinf(lower), 0.0, F.logsigmoid(-a))
    between = torch.where(open_ended, 0.0, torch.log(-torch.expm1(-width)))
    return log_below + log_above + between
