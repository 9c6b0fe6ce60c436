"""Patches, and autoregressive blocks over them (Zhai et al., 2024, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.bijectors import (
    Bijector,
    MapKind,
    log_det_wanted,
    require_converged,
    sum_per_item,
    unknown_log_det,
)
from flowzoo.errors import InputError
from flowzoo.nets.precision import RunsNetwork
from flowzoo_tarflow.transformer import CausalTransformer

ScaleKind = Literal["unbounded", "soft-clip", "softplus"]
Sampler = Literal["sequential", "jacobi"]

TOLERANCE = 1e-5
"""The largest change, relative to a value or to 1, at which Jacobi iterations have converged, in float32."""

UNIT = 0.5413248546129181
"""log(e - 1): softplus of it is 1."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """Guidance: samples are drawn away from what the model does without a label.

    Attributes:
        weight: w, 0 for none.
        kind: ``"linear"`` extrapolates shift and log-scale, as in the paper: a + w (a - a_0); ``"distribution"`` gives
            the normal that is proportional to p(x|y)^(1+w) / p(x)^(w s), with s that keeps it one (STARFlow).
        annealed: Whether w grows over the tokens from w / (T - 1) to w.
    """

    weight: float
    kind: Literal["linear", "distribution"] = "linear"
    annealed: bool = True


class TransformerBlock(Bijector, RunsNetwork):
    """z_t = (x_t - b_t) exp(-a_t), with (a, b)_t of the tokens before t; log|det| = -sum a (equation 6).

    Every second block goes through the tokens backwards. The inverse finds token after token, with cached keys and
    values; Jacobi iterations find blocks of tokens at once, until none changes.

    Attributes:
        scale: Kind of the log-scale.
        clip: Its bound.
    """

    def __init__(
        self,
        net: CausalTransformer,
        *,
        flip: bool,
        scale: ScaleKind = "unbounded",
        clip: float = 4.0,
        sampler: Sampler = "sequential",
        jacobi_block: int = 16,
    ) -> None:
        """Makes the block.

        Args:
            net: Gives 2 D numbers for each token: raw log-scales, then shifts.
            flip: Whether the last token comes first.
            scale: Kind of the log-scale.
            clip: Bound of ``"soft-clip"``.
            sampler: How the inverse is computed.
            jacobi_block: Tokens found at once by ``"jacobi"``.
        """
        super().__init__()
        self.net, self.flip = net, flip
        self.scale, self.clip = scale, clip
        self.sampler, self.jacobi_block = sampler, jacobi_block
        numeric = sampler == "jacobi"
        self.own_kind = MapKind(
            inverse="numeric" if numeric else "sequential",
            inverse_passes=net.position.shape[0],
            tolerance=TOLERANCE if numeric else None,
        )

    def scale_and_shift(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """A and b ``(..., D)`` of the network's output ``(..., 2 D)``."""
        raw, shift = parameters.chunk(2, dim=-1)
        if self.scale == "soft-clip":
            return self.clip * torch.tanh(raw / self.clip), shift
        if self.scale == "softplus":
            return F.softplus(raw + UNIT).log(), shift
        return raw, shift

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = x.flip(1) if self.flip else x
        a, b = self.scale_and_shift(self.run_network(self.net, x, context))
        z = (x - b) * torch.exp(-a)
        return z.flip(1) if self.flip else z, -sum_per_item(a)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z = z.flip(1) if self.flip else z
        if torch.is_grad_enabled():
            x = self._with_gradients(z, context)
        elif self.sampler == "jacobi":
            x = self._jacobi(z, context)
        else:
            x = self._one_by_one(z, context)
        if not log_det_wanted():
            return x.flip(1) if self.flip else x, unknown_log_det(z)
        a, _ = self.scale_and_shift(self.run_network(self.net, x, context))
        return x.flip(1) if self.flip else x, sum_per_item(a)

    def _one_by_one(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Each token once; the first is as it is."""
        x, caches = z.clone(), self.net.caches(len(z))
        for t in range(1, z.shape[1]):
            a, b = self.scale_and_shift(self.net.next(x[:, t - 1 : t], t - 1, context, caches))
            x[:, t] = (z[:, t : t + 1] * a.exp() + b)[:, 0]
        return x

    def _with_gradients(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Each token from a whole evaluation of the network, recorded: T of them."""
        x = z
        for t in range(1, z.shape[1]):
            a, b = self.scale_and_shift(self.net(x, context)[:, t])
            x = torch.cat((x[:, :t], (z[:, t] * a.exp() + b)[:, None], z[:, t + 1 :]), dim=1)
        return x

    def _jacobi(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Blocks of tokens: x <- z exp(a(x)) + b(x) within a block until it does not change."""
        tolerance = TOLERANCE if z.dtype == torch.float32 else 1e-12
        x, caches = z.clone(), self.net.caches(len(z))
        worst = z.new_zeros(len(z), 1)
        for first in range(0, z.shape[1] - 1, self.jacobi_block):
            last = min(first + self.jacobi_block, z.shape[1] - 1)
            target, change = z[:, first + 1 : last + 1], z.new_full((len(z), 1), torch.inf)
            # Inputs are tokens first to last - 1; the block's own are guessed, and right one by one at the latest.
            for _ in range(last - first + 1):
                a, b = self.scale_and_shift(self.net.next(x[:, first:last], first, context, caches))
                again = target * a.exp() + b
                before = x[:, first + 1 : last + 1]
                change = ((again - before) / again.abs().clamp(min=1)).flatten(1).abs().amax(1, keepdim=True)
                x[:, first + 1 : last + 1] = again
                if bool((change <= tolerance).all()):
                    break
            worst = torch.maximum(worst, change)
        require_converged(self, worst, tolerance)
        return x

    def guided_inverse(self, z: Tensor, context: Tensor, guidance: Guidance) -> Tensor:
        """Tokens ``(B, T, D)`` of a latent under guidance, token after token.

        Args:
            z: ``(B, T, D)``.
            context: One-hot rows ``(B, K)``.
            guidance: How.

        Raises:
            InputError: The block has no labels.
        """
        if self.net.class_embedding is None:
            raise InputError("guidance needs a model with labels; this one has none.")
        z = z.flip(1) if self.flip else z
        n, tokens, _ = z.shape
        x, caches = z.clone(), self.net.caches(2 * n)
        both = torch.cat((context, torch.full_like(context, 1 / context.shape[1])))
        for t in range(1, tokens):
            seen = x[:, t - 1 : t].repeat(2, 1, 1)
            a, b = self.scale_and_shift(self.net.next(seen, t - 1, both, caches))
            weight = guidance.weight * (t / (tokens - 1) if guidance.annealed else 1.0)
            a, b = guided(a[:n], b[:n], a[n:], b[n:], weight, guidance.kind)
            x[:, t] = (z[:, t : t + 1] * a.exp() + b)[:, 0]
        return x.flip(1) if self.flip else x


def guided(
    a: Tensor, b: Tensor, a_0: Tensor, b_0: Tensor, weight: float, kind: Literal["linear", "distribution"]
) -> tuple[Tensor, Tensor]:
    """Log-scale and shift under guidance, of those with (a, b) and without (a_0, b_0) a label; elementwise.

    Returns:
        Log-scale and shift.
    """
    if kind == "linear":
        return a + weight * (a - a_0), b + weight * (b - b_0)
    # A normal raised to 1 + w over another to w s: precisions add, and s at most 1 keeps their sum positive.
    s = torch.exp(2 * (a - a_0)).clamp(max=1.0)
    scale = torch.exp(a) / torch.sqrt(1 + weight - weight * s)
    shift = ((1 + weight) * b - weight * s * b_0) / (1 + weight - weight * s)
    return scale.log(), shift
