"""Batches gathered ahead of time by worker threads, in order.

Threads rather than processes: decoding a JPEG in PIL, copying out of a memory map and hashing all release
Python's global lock, and threads need no second copy of the set and no pickling of batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetch"]

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def prefetch(
    function: Callable[[_Job], _Result], jobs: Iterable[_Job], *, workers: int = 2, depth: int = 4
) -> Iterator[_Result]:
    """Yields ``function(job)`` for every job, in the jobs' order, computed by threads ahead of the consumer.

    Args:
        function: Called from several threads at once.
        jobs: May be endless; at most ``depth`` of them are in flight.
        workers: Number of threads; 0 computes each result when it is asked for, in the caller's thread.
        depth: How many results may be under way or waiting.

    Yields:
        The results. An exception in ``function`` is raised where its result would have come. Closing the
        iterator ends the threads.
    """
    if workers == 0:
        yield from map(function, jobs)
        return
    source = iter(jobs)
    pending: deque[Future[_Result]] = deque()
    executor = ThreadPoolExecutor(workers, thread_name_prefix="flowzoo-data")
    try:
        for job in source:
            pending.append(executor.submit(function, job))
            if len(pending) >= max(depth, workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
