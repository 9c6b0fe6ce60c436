"""Couplings that take turns on the same two halves: parted once before the first, joined once behind the last."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from flowzoo.bijectors.coupling import Coupling
from flowzoo.bijectors.partitions import (
    AlternateColumns,
    ChannelHalves,
    Checkerboard,
    InterleavedFeatures,
    Partition,
)

PACKING: tuple[type[Partition], ...] = (ChannelHalves, InterleavedFeatures, AlternateColumns, Checkerboard)
"""Partitions of which two are the same but for which half is first."""


class Turns:
    """Couplings one after the other, of one kind of partition."""

    def __init__(self, couplings: Sequence[Coupling]) -> None:
        """Keeps the couplings, in the order in which they, or their inverses, are applied."""
        self.couplings = couplings

    def run(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, list[Tensor]]:
        """Maps ``(B, ...)``; the log-determinants ``(B,)`` are those of each."""
        direction = "inverse" if inverse else "forward"
        partition = self.couplings[0].partition
        partition = partition.complement() if partition.swap else partition
        halves, terms = list(partition.split(x)), []
        for coupling in self.couplings:
            given = int(coupling.partition.swap)
            before = halves[1 - given]
            after, term = coupling.map_half(halves[given], before, None, inverse)
            coupling.check_result(before, after, term, direction)
            halves[1 - given] = after
            terms.append(term)
        return partition.merge(*halves), terms


def take_turns(first: Coupling, then: Coupling) -> bool:
    """Whether these are on the same halves, which pack what they hold."""
    kind = type(first.partition)
    return kind in PACKING and kind is type(then.partition)
