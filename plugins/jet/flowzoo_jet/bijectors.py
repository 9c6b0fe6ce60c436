"""Patches, the two ways to part tokens, and Jet's coupling (Kolesnikov, Pinto and Tschannen, 2024, section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.bijectors import Bijector, sum_per_item
from flowzoo.nets.precision import RunsNetwork
from flowzoo_jet.vit import Conditioner

SpatialKind = Literal["checkerboard", "columns", "rows"]


class ViTCoupling(Bijector, RunsNetwork):
    """z_2 = (x_2 + b) s, with (b, raw) of x_1 by a vision transformer and s = S sigmoid(raw); log|det| = sum log s.

    (x_1, x_2) are the halves of ``order`` along the tokens' channels, or along the tokens. Halves of tokens are seen by
    the network as all tokens with half the channels, so that both kinds have the same shapes. S bounds the scales, and
    S = 2 begins as the identity.
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(self, net: Conditioner, order: Tensor, *, spatial: bool, scale_bound: float = 2.0) -> None:
        """Makes the coupling.

        Args:
            net: ``(B, T, D / 2)`` to ``(B, T, D)``.
            order: A permutation of the channels, or of the tokens; its first half conditions the second.
            spatial: Whether it is of the tokens.
            scale_bound: S.
        """
        super().__init__()
        self.net = net
        self.spatial, self.scale_bound = spatial, scale_bound
        # Part of the model: weights are useless under another permutation.
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", order.argsort(), persistent=False)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Halves ``(B, T, D / 2)``."""
        if not self.spatial:
            one, two = x.index_select(2, self.order).chunk(2, dim=2)
            return one, two
        one, two = x.index_select(1, self.order).chunk(2, dim=1)
        half = x.shape[2] // 2
        one, two = (part.unflatten(2, (2, half)).flatten(1, 2) for part in (one, two))
        return one, two

    def _merge(self, one: Tensor, two: Tensor) -> Tensor:
        if not self.spatial:
            return torch.cat((one, two), dim=2).index_select(2, self.inverse_order)
        parts = [half.unflatten(1, (half.shape[1] // 2, 2)).flatten(2) for half in (one, two)]
        return torch.cat(parts, dim=1).index_select(1, self.inverse_order)

    def _shift_and_log_scale(self, one: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        shift, raw = self.run_network(self.net, one, context).chunk(2, dim=2)
        return shift, F.logsigmoid(raw) + math.log(self.scale_bound)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        one, two = self._split(x)
        shift, log_scale = self._shift_and_log_scale(one, context)
        return self._merge(one, (two + shift) * log_scale.exp()), sum_per_item(log_scale)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        one, two = self._split(z)
        shift, log_scale = self._shift_and_log_scale(one, context)
        return self._merge(one, two * torch.exp(-log_scale) - shift), -sum_per_item(log_scale)


def spatial_order(kind: SpatialKind, grid: tuple[int, int], *, swap: bool) -> list[int]:
    """The tokens of one colour, then those of the other; each in rows from above.

    Args:
        kind: ``"checkerboard"``, ``"columns"`` or ``"rows"``, of alternating colours.
        grid: Rows and columns of tokens, an even number of them in all.
        swap: Whether the second colour comes first.
    """
    rows, columns = grid
    places = [(r, c) for r in range(rows) for c in range(columns)]
    # Where a pattern has not as many tokens of both colours (odd columns), counting on along the rows has.
    colours: dict[str, Callable[[int, int], int]] = {
        "checkerboard": lambda r, c: (r + c) % 2,
        "columns": lambda r, c: (c if columns % 2 == 0 else r * columns + c) % 2,
        "rows": lambda r, c: (r if rows % 2 == 0 else r * columns + c) % 2,
    }
    colour = colours[kind]
    one = [i for i, (r, c) in enumerate(places) if colour(r, c) == int(swap)]
    two = [i for i, (r, c) in enumerate(places) if colour(r, c) != int(swap)]
    return one + two
