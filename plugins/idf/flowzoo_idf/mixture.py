"""Mixtures of discretised logistics, as probabilities of integers and as maps of reals."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LOG_SCALE_RANGE", "UNIFORM_SHARE", "IntegerMixture"]

UNIFORM_SHARE = 2.0**-16
"""Share of every mixture that is uniform over the window, so that no integer in it is impossible."""

LOG_SCALE_RANGE = (-4.0, 6.0)
"""Log-scales of the logistics are clamped to this, in log grey levels."""

_TINY = 1e-30


class IntegerMixture:
    """P(k) of integers 0 <= k < W: the mass of a mixture of logistics in [k, k + 1).

    The tails beyond the window belong to its first and last integer (Salimans et al. 2017, section 2.1), and a small
    uniform part keeps every integer possible.
    """

    def __init__(self, logits: Tensor, means: Tensor, log_scales: Tensor, window: int) -> None:
        """Makes the mixture.

        Args:
            logits: Unnormalised log-weights ``(K, B, ...)``.
            means: Means ``(K, B, ...)``; a logistic with mean k + 1/2 has its mode on k.
            log_scales: Log-scales ``(K, B, ...)``, clamped to :data:`LOG_SCALE_RANGE`.
            window: W.
        """
        self.log_weights = F.log_softmax(logits, dim=0) + math.log1p(-UNIFORM_SHARE)
        self.means = means
        self.inverse_scales = torch.exp(-log_scales.clamp(*LOG_SCALE_RANGE))
        self.window = window

    def log_prob(self, k: Tensor) -> Tensor:
        """Log P(k) in nats, elementwise, for integers held as floats.

        With a and b the standardised ends of [k, k + 1): sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - e^(a - b)).
        """
        a = (k - self.means) * self.inverse_scales
        b = a + self.inverse_scales
        first, last = k <= 0, k >= self.window - 1
        below = F.logsigmoid(b).masked_fill(last, 0.0)
        above = F.logsigmoid(-a).masked_fill(first, 0.0)
        inside = torch.log(-torch.expm1(-self.inverse_scales)).masked_fill(first | last, 0.0)
        log_mass = torch.logsumexp(self.log_weights + below + above + inside, dim=0)
        return torch.logaddexp(log_mass, log_mass.new_tensor(math.log(UNIFORM_SHARE / self.window)))

    def tails(self, edge: Tensor) -> tuple[Tensor, Tensor]:
        """The mass below and above integer edges, each to its own relative precision."""
        t = (edge - self.means) * self.inverse_scales
        weights = self.log_weights.exp()
        uniform = UNIFORM_SHARE * edge / self.window
        below = (weights * torch.sigmoid(t)).sum(0) + uniform
        above = (weights * torch.sigmoid(-t)).sum(0) + (UNIFORM_SHARE - uniform)
        return below.masked_fill(edge <= 0, 0.0), above.masked_fill(edge >= self.window, 0.0)

    def to_logistic(self, x: Tensor, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """The reals that make a real inside [k, k + 1) standard logistic.

        z = logit c with c = P(< k) + (x - k) P(k), log dz/dx = log P(k) - log c - log(1 - c).

        Args:
            x: Reals in [0, W).
            log_prob: Log P(floor x), whose gradient the derivative's logarithm inherits.

        Returns:
            z and log dz/dx, elementwise.
        """
        k = torch.floor(x)
        mass = log_prob.exp()
        c = self.tails(k)[0] + (x - k) * mass
        s = self.tails(k + 1)[1] + (1 - (x - k)) * mass
        log_c, log_s = torch.log(c.clamp_min(_TINY)), torch.log(s.clamp_min(_TINY))
        return log_c - log_s, log_prob - log_c - log_s

    def from_logistic(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`to_logistic`: the integer by bisection of the window, then the place inside its bin."""
        k = torch.zeros_like(z)
        step = self.window // 2
        while step >= 1:
            below, above = self.tails(k + step)
            k = torch.where(torch.log(below) - torch.log(above) <= z, k + step, k)
            step //= 2
        mass = self.log_prob(k).exp()
        from_left = (torch.sigmoid(z) - self.tails(k)[0]) / mass
        from_right = (torch.sigmoid(-z) - self.tails(k + 1)[1]) / mass
        inside = torch.where(z < 0, from_left, 1 - from_right)
        return k + inside.clamp(0.0, 1 - torch.finfo(z.dtype).eps * 2 * self.window)
