"""Subjects' tasks measured under limits of time: what takes too long is ended, and the rest goes on without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.interleave import Measured, Worker
from benchmarks.workloads import Task, Workload

START = 60.0
"""Seconds in which a process has to be there."""


class Item(NamedTuple):
    """One task of one subject."""

    subject: str
    task: Task


Found = dict[Item, Measured]


def measure_items(
    workload: Workload, items: Sequence[Item], each: float, until: float, **options: Any
) -> Found:
    """Measures items in one process, and in a new one those after an item that failed or took too long.

    No item is tried twice.

    Args:
        workload: What they work on.
        items: The items, in their order.
        each: Seconds that an item may take.
        until: When all ends, by ``time.monotonic``.
        **options: More of the worker's specification, ``repeats`` among them.

    Returns:
        The runs of every item, those of ended ones included, and why there are no more.
    """
    found: Found = {}
    while len(found) < len(items):
        left = [item for item in items if item not in found]
        if time.monotonic() >= until:
            found |= {item: Measured(error="no time was left") for item in left}
        else:
            found |= one_process(workload, left, each, until, options)
    return found


def one_process(
    workload: Workload, items: Sequence[Item], each: float, until: float, options: dict[str, Any]
) -> Found:
    """The items that one process measured, the last of which may have ended it; all if it never came to be."""
    found: Found = {}
    worker = Worker({"workload": workload.to_json(), "items": items, **options})
    limit = _Limit(worker)
    try:
        limit.begin(min(START, until - time.monotonic()))
        if worker.answer() is None:
            why = limit.reached or worker.last_words()
            return {item: Measured(error=why) for item in items}
        for item in items:
            seconds = min(each, until - time.monotonic())
            if seconds <= 0:
                break
            limit.begin(seconds)
            found[item] = Measured()
            if not _complete(worker, found[item], limit):
                break
    finally:
        limit.end()
        worker.kill()
        worker.end()
    return found


def _complete(worker: Worker, measured: Measured, limit: _Limit) -> bool:
    """Notes the runs of the item at work; False if it failed, or was ended."""
    while (answer := worker.answer()) is not None:
        (run,) = answer
        if run.get("done"):
            return True
        if "error" in run:
            measured.error = run["error"]
            return False
        measured.runs.append(run)
    measured.error = limit.reached or worker.last_words()
    return False


class _Limit:
    """Ends a process when the time of what it is at is over."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._timer: threading.Timer | None = None
        self.reached: str | None = None

    def begin(self, seconds: float) -> None:
        """The time counts from now."""
        self.end()
        self._timer = threading.Timer(max(seconds, 0.0), self._over, (seconds,))
        self._timer.start()

    def end(self) -> None:
        """It counts no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _over(self, seconds: float) -> None:
        self.reached = f"not done after {max(seconds, 0):.0f} s"
        self._worker.kill()
