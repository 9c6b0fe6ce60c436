"""Learning-rate schedules: pure functions of the step, so that resuming cannot shift them."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

from flowzoo.errors import ConfigError, PluginError
from flowzoo.registry.extensions import Extension, find_extension
from flowzoo.registry.isolation import describe
from flowzoo.training.updates import MAX_RATE, OWN_SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowzoo.training.updates import Segment

GROUP = "flowzoo.schedules"
"""The entry points; a value is a function of (step, length, **arguments) that gives the factor of the rate."""


def find_schedule(segment: Segment) -> Extension | None:
    """The function of a segment's kind; None for the kinds that are computed here.

    Raises:
        ConfigError: There is none, or it does not take these arguments.
        PluginError: Its distribution is broken.
    """
    if segment.kind in OWN_SCHEDULES:
        return None
    found = find_extension(GROUP, segment.kind, OWN_SCHEDULES, "recipe: schedule.kind")
    signature = inspect.signature(found.value)
    try:
        signature.bind(0, 1, **(segment.arguments or {}))
    except TypeError as error:
        known = ", ".join(list(signature.parameters)[2:]) or "no arguments"
        raise ConfigError(f"recipe: schedule {segment.kind!r}: {error}; it knows {known}.") from error
    return found


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
    if segment.kind not in OWN_SCHEDULES:
        return _foreign_factor(segment, step, length)
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


def _foreign_factor(segment: Segment, step: int, length: int) -> float:
    """The factor of an entry point's schedule.

    Raises:
        PluginError: It fails, or gives no number from 0 to :data:`MAX_RATE`.
    """
    found = find_schedule(segment)
    assert found is not None
    owner = f"The schedule {found.name!r} of {found.distribution} {found.version}"
    try:
        factor = float(found.value(step, length, **(segment.arguments or {})))
    except Exception as error:
        raise PluginError(f"{owner} fails at step {step} of {length}: {describe(error)}") from error
    if not 0 <= factor <= MAX_RATE:
        raise PluginError(f"{owner} gives {factor} at step {step} of {length}; expected 0 to {MAX_RATE:g}.")
    return factor
