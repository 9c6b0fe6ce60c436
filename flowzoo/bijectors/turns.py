"""Couplings that take turns on the same two halves: parted once before the first, joined once behind the last."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.coupling import Coupling


class Turns:
    """Couplings one after the other, of one partition or its complement."""

    def __init__(self, couplings: Sequence[Coupling]) -> None:
        """Keeps the couplings, in the order in which they, or their inverses, are applied."""
        self.couplings = couplings

    def run(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, list[Tensor]]:
        """Maps ``(B, ...)``; the log-determinants ``(B,)`` are those of each."""
        partition = self.couplings[0].partition
        partition = partition.complement() if partition.swap else partition
        halves, terms = list(partition.split(x)), []
        for coupling in self.couplings:
            given = int(coupling.partition.swap)
            before = halves[1 - given]
            after, term = coupling.map_half(halves[given], before, context, inverse)
            coupling._check_result(before, after, term, "inverse" if inverse else "forward")
            halves[1 - given] = after
            terms.append(term)
        return partition.merge(*halves), terms


def take_turns(first: Bijector, then: Bijector) -> bool:
    """Whether these are couplings on the same halves, which pack what they hold."""
    if not (isinstance(first, Coupling) and isinstance(then, Coupling)):
        return False
    same = first.partition in (then.partition, then.partition.complement())
    return same and first.partition.packs and first.is_by_halves and then.is_by_halves
