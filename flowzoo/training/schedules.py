"""Learning-rate schedules: pure functions of the step, so that resuming cannot shift them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowzoo.training.recipe import Segment


def lr_factor(schedule: Sequence[Segment], step: int, total: int) -> float:
    """The factor of the learning rate at an update.

    Args:
        schedule: Segments in order; empty for a constant rate. After the last one its final value holds.
        step: The update, counted from 0.
        total: Updates of the whole training, which a segment without ``steps`` runs up to.
    """
    begin = 0
    for i, segment in enumerate(schedule):
        length = segment.steps if segment.steps is not None else max(1, total - begin)
        if step < begin + length:
            return segment_factor(segment, step - begin, length)
        if i == len(schedule) - 1:
            return segment_factor(segment, length, length)
        begin += length
    return 1.0


def segment_factor(segment: Segment, step: int, length: int) -> float:
    """The factor at a step of one segment, counted from the segment's beginning.

    A linear segment moves before the first update, so that a warm-up from 0 wastes no update and its
    last update has the end value. A cosine starts at its start value and would reach its end one update
    after its last.
    """
    linear = segment.kind == "linear"
    start = segment.start if segment.start is not None else 0.0 if linear else 1.0
    end = segment.end if segment.end is not None else 1.0 if linear else 0.0
    if segment.kind == "constant":
        return start
    if linear:
        return start + (end - start) * min(1.0, (step + 1) / length)
    if segment.kind == "cosine":
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / length)))
    decayed: float = start * segment.rate ** (step / segment.every)
    return max(segment.floor, decayed)
