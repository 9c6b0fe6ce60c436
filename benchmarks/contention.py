"""How much of the machine other processes held while something was measured."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

STAT = Path("/proc/stat")


def watch() -> Callable[[], float | None]:
    """Begins to watch; the returned function gives the cores that others held on average since.

    Others are all processes but this one and its children that have ended by then. None where the system does not
    tell.
    """
    start, busy, own = time.monotonic(), _busy(), _own()

    def others() -> float | None:
        now = _busy()
        if busy is None or now is None:
            return None
        elapsed = max(time.monotonic() - start, 1e-9)
        return max(0.0, (now - busy - (_own() - own)) / elapsed)

    return others


def _busy() -> float | None:
    """Seconds that all cores together have worked since the machine started."""
    if not STAT.exists():
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, STAT.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
