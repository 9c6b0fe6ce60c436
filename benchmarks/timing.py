"""In a measuring process: one subject's task after the other, each warmed up and timed, and its model freed."""

from __future__ import annotations

import gc
import math
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.rss import peak, reset_peak

Run = Callable[[], Any]
Answer = Callable[[list[dict[str, Any]]], None]

WARM = 0.5
"""Seconds of work before the first run: a card at rest takes some time to raise its clocks."""

TOGETHER = 0.2
"""Seconds of calls that are timed as one run, so that what launching one more or less takes does not count."""

ENOUGH = 4.0
"""Seconds after which no further run of a task begins."""

FEWEST, MOST = 3, 1000
"""Calls while warming up, unless they take too long; and the most calls of a run."""


def answer_items(spec: dict[str, Any], prepare: Callable[[dict[str, Any]], Run], answer: Answer) -> None:
    """Measures the items of a specification in turn, each run an answer; ends at the first that fails.

    What failed may have harmed the process: a CUDA error stays until it ends.
    """
    on_cuda = spec["workload"]["device"].startswith("cuda")
    for index, (subject, task) in enumerate(spec["items"]):
        try:
            for run in runs(prepare(spec | {"subject": subject, "task": task}), spec, on_cuda):
                answer([{"item": index, "task": task} | run])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said and the page goes on
            traceback.print_exc()
            said = str(error).strip().splitlines() or [""]
            answer([{"item": index, "error": f"{type(error).__name__}: {said[0]}"}])
            return
        answer([{"item": index, "done": True}])
        free(on_cuda)


def runs(run: Run, spec: dict[str, Any], on_cuda: bool) -> Iterator[dict[str, Any]]:
    """The runs of a callable: seconds of one call, and the peak of memory since its first call."""
    run()
    _reset(on_cuda)
    once = _warmed(run, spec.get("warm_seconds", WARM), on_cuda)
    calls = min(MOST, max(1, math.ceil(spec.get("together", TOGETHER) / max(once, 1e-9))))
    began = time.perf_counter()
    for _ in range(spec["repeats"]):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        _wait(on_cuda)
        seconds = (time.perf_counter() - start) / calls
        yield {"seconds": seconds, "calls": calls, "before": 0, "peak": _peak(on_cuda)}
        if time.perf_counter() - began > ENOUGH:
            return


def free(on_cuda: bool) -> None:
    """Gives back what is no longer referred to, so that the next model finds the memory as this one did."""
    gc.collect()
    if on_cuda:
        import torch

        torch.cuda.empty_cache()


def _warmed(run: Run, seconds: float, on_cuda: bool) -> float:
    """Calls until the device is warm; the time of the fastest call."""
    began, fastest, calls = time.perf_counter(), math.inf, 0
    while True:
        start = time.perf_counter()
        run()
        _wait(on_cuda)
        now = time.perf_counter()
        fastest, calls = min(fastest, now - start), calls + 1
        if (now - began >= seconds and calls >= FEWEST) or now - began >= ENOUGH:
            return fastest


def _wait(on_cuda: bool) -> None:
    if on_cuda:
        import torch

        torch.cuda.synchronize()


def _reset(on_cuda: bool) -> None:
    """What preparing took is no part of the peak."""
    free(on_cuda)
    if not on_cuda:
        reset_peak()
        return
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()


def _peak(on_cuda: bool) -> int:
    if not on_cuda:
        return peak()
    import torch

    # Not what is allocated: a graph's tensors live in a pool of its own, which is reserved and seems free.
    return int(torch.cuda.max_memory_reserved())
