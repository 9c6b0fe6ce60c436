"""Augmentation: a stage from R^D to R^(D + d), so that a flow may have more latent variables than data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowzoo.densities.base import StandardNormal
from flowzoo.densities.dequantization import Run, call_bijector
from flowzoo.nets.keyed import draw
from flowzoo.nets.precision import RunsNetwork


class Augmentation(nn.Module):
    """v of D values becomes (v, e) of D + d, with e of density q(e|v).

    log p(v) >= E log p(v, e) - log q(e|v), a bound that importance samples tighten (Huang et al., 2020, "Augmented
    normalizing flows"; Chen et al., 2020, "VFlow"). A variational autoencoder is one: its encoder is q.

    Attributes:
        extra_dims: d.
    """

    def __init__(self, extra_dims: int) -> None:
        """Makes the stage.

        Args:
            extra_dims: d, at least 1.
        """
        super().__init__()
        self.extra_dims = extra_dims

    def forward(self, v: Tensor, run: Run = call_bijector, *, central: bool = False) -> tuple[Tensor, Tensor]:
        """Draws the extra values.

        Args:
            v: Data as reals, ``(B, ...)`` with D values an item.
            run: How bijectors inside are evaluated.
            central: Whether the values in the middle of q are taken instead of drawn ones.

        Returns:
            ``(B, D + d)``, the flattened data first, and log q(e|v) ``(B,)`` in nats.
        """
        e, log_q = self.draw(v, run, central)
        return torch.cat((v.flatten(1), e), dim=1), log_q

    def draw(self, v: Tensor, run: Run, central: bool) -> tuple[Tensor, Tensor]:
        """Draws e ``(B, d)`` for data ``(B, ...)``, with log q(e|v) ``(B,)``; random numbers by ``nets.keyed.draw``."""
        raise NotImplementedError(f"{type(self).__name__} must define draw")

    def remove(self, w: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Drops the extra values: ``(B, D + d)`` to ``(B, *shape)``."""
        return w[:, : math.prod(shape)].reshape(w.shape[0], *shape)


class StandardAugmentation(Augmentation):
    """e standard normal whatever the data are: extra dimensions and nothing to learn."""

    def draw(self, v: Tensor, run: Run, central: bool) -> tuple[Tensor, Tensor]:
        """Draws from N(0, 1)."""
        e = _normal(self, v, self.extra_dims, central)
        return e, StandardNormal().log_prob(e)


LOG_SCALE_BOUND = 7.0
"""Largest |log s|. Encoders give far less; of images that are like none they learned from, an unbounded exponential
may be anything, and machines then agree on no digit of the density."""


class GaussianAugmentation(Augmentation, RunsNetwork):
    """e = m(v) + s(v) eps, eps standard normal: the encoder of a variational autoencoder; |log s| is at most 7."""

    def __init__(self, encoder: nn.Module, extra_dims: int) -> None:
        """Makes the stage.

        Args:
            encoder: ``encoder(v, None)`` gives ``(B, 2 d)``: m, then log s.
            extra_dims: d.
        """
        super().__init__(extra_dims)
        self.encoder = encoder

    def draw(self, v: Tensor, run: Run, central: bool) -> tuple[Tensor, Tensor]:
        """Draws from N(m, s^2)."""
        mean, log_scale = self.run_network(self.encoder, v, None).chunk(2, dim=1)
        log_scale = log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND)
        eps = _normal(self, v, self.extra_dims, central)
        return mean + log_scale.exp() * eps, StandardNormal().log_prob(eps) - log_scale.sum(dim=1)


def _normal(module: nn.Module, v: Tensor, dims: int, central: bool) -> Tensor:
    if central:
        return v.new_zeros(v.shape[0], dims)
    return draw(module, "normal", (dims,), v, per="sample")
