"""Speed and memory on a GPU: the ways to run a flow there beside its floor and its peers, in under ten minutes.

The floor, plain flowzoo and the engine come first, of all workloads; then the peers, CUDA graphs, and what is compiled.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.captured import SUBJECTS, hopeless
from benchmarks.comparison import PLAIN, UNIFORM
from benchmarks.gpu_page import WAYS, compared
from benchmarks.interleave import Measured
from benchmarks.items import Item, measure_items
from benchmarks.peers import BUILDERS, LIBRARIES, peers_of
from benchmarks.workloads import BFLOAT16, TASKS, Task, Workload, glow

MINUTES = 9.5
"""Everything has ended by then."""

EACH = {"compiled": 45.0}
"""Seconds that one task of a subject may take; compiling takes its time."""

OTHERS = 30.0
"""The same for all others."""

WHOLE = 60.0
"""Seconds of a process that is not among the first: these have all the time there is."""

FIRST = ("floor", "plain", "flowzoo")
"""Who is measured on all workloads before anybody else."""

NO_FLOOR = {
    "tarflow": "a sample is hundreds of steps one after the other, to which one parallel pass is no floor"
}
"""Architectures whose sampling has no floor, and why."""

MISSING = "not importable here; benchmarks/README.md says how to carry it along"

Row = dict[str, Any]


class Job(NamedTuple):
    """Items of one workload in one process."""

    label: str
    workload: Workload
    items: tuple[Item, ...]


def main(device: str, out: Path, repeats: int, *, smallest: bool = False, minutes: float = MINUTES) -> None:
    """Measures all workloads on a device and writes docs/cuda.md, of a CPU only into another folder."""
    from tools.cuda.__main__ import lacking
    from tools.cuda.on_path import plugins_on_path

    if reason := lacking(device):
        print(f"skipped: {reason}", file=sys.stderr)  # noqa: T201
        return
    with plugins_on_path():
        from tools.cuda.page import add

        rows: list[Row] = []
        for row in measure(device, repeats, smallest, time.monotonic() + 60 * minutes):
            rows.append(row)
            # After each, so that a run that is cut short has not been for nothing.
            add(out, "speed", compared(rows), device)


def workloads(device: str, smallest: bool) -> dict[str, Workload]:
    """What is measured, by label; where a preset is more than peers can express, beside one that they can."""
    if smallest:
        tiny = glow(1, 8, 8, levels=2, batch=4, edge_bias=False, device=device)
        return {"glow, no edge bias, 4": tiny}
    realnvp = Workload(model="realnvp-cifar10", config=UNIFORM | PLAIN, batch=64, device=device)
    return {
        "glow K=32 L=3 hidden 512, no edge bias, 64": glow(32, 512, edge_bias=False, batch=64, device=device),
        "glow K=32 L=3 hidden 512, no edge bias, 512": glow(
            32, 512, edge_bias=False, batch=512, device=device
        ),
        "realnvp-cifar10, uniform noise, plain networks, 64": realnvp,
        "realnvp-cifar10, 64": Workload(model="realnvp-cifar10", batch=64, device=device),
        "flowpp-cifar10, 64": Workload(model="flowpp-cifar10", batch=64, device=device),
        "tarflow-cifar10, 64": Workload(model="tarflow-cifar10", batch=64, device=device),
    }


def able_peers(workload: Workload) -> tuple[str, ...]:
    """The libraries that can express a workload, importable or not."""
    able = peers_of(workload) if workload.architecture in BUILDERS else ()
    return tuple(name for name in LIBRARIES if name in able)


def importable(library: str) -> bool:
    """Whether a library is there."""
    return importlib.util.find_spec(library) is not None


def jobs(found: dict[str, Workload]) -> list[list[Job]]:
    """What is to be measured, in four parts one after the other, most telling first."""
    # Training before all else, and sampling, which can take very long, last.
    order: tuple[Task, ...] = ("train", BFLOAT16, "log_prob", "sample")
    ours = tuple(Item(subject, task) for task in order for subject in FIRST)
    several = list(found.items())
    return [
        [Job(*each, ours) for each in several],
        [
            Job(label, workload, tuple(Item(peer, task) for task in TASKS))
            for label, workload in several
            for peer in able_peers(workload)
        ],
        [Job(*each, tuple(Item("graphs", task) for task in TASKS)) for each in several],
        [Job(*each, (Item("compiled", task),)) for task in TASKS for each in several],
    ]


def not_to_try(workload: Workload, item: Item) -> str | None:
    """Why an item is not measured; None if it is."""
    if item.subject in LIBRARIES:
        return None if importable(item.subject) else MISSING
    if item.subject == "floor" and item.task == "sample":
        why = NO_FLOOR.get(workload.architecture)
    else:
        why = hopeless(item.subject, workload, item.task) if item.subject in SUBJECTS else None
    return f"not tried: {why}" if why else None


def measure(device: str, repeats: int, smallest: bool, deadline: float) -> Iterator[Row]:
    """A row for each workload, subject and task: images a second and peak memory, or why there are none."""
    for number, part in enumerate(jobs(workloads(device, smallest))):
        for index, job in enumerate(part):
            now = time.monotonic()
            # Of the first part every workload has its share; the other parts have what remains.
            whole = (deadline - now) / (len(part) - index) if number == 0 else min(WHOLE, deadline - now)
            reasons = {item: not_to_try(job.workload, item) for item in job.items}
            items = [item for item in job.items if reasons[item] is None]
            _say(job, items, reasons)
            options = {"repeats": repeats} | ({"warm_seconds": 0.05, "together": 0.05} if smallest else {})
            each = EACH.get(job.items[0].subject, OTHERS)
            found = measure_items(job.workload, items, each, now + whole, **options)
            for item in job.items:
                why = reasons[item]
                yield _row(job, item, found[item] if why is None else Measured(error=why))


def _say(job: Job, items: list[Item], reasons: dict[Item, str | None]) -> None:
    names = ", ".join(dict.fromkeys(item.subject for item in job.items))
    tasks = ", ".join(dict.fromkeys(item.task for item in items))
    said = tasks or next(why for why in reasons.values() if why)
    print(f"{job.label}: {names}: {said}", file=sys.stderr, flush=True)  # noqa: T201


def _row(job: Job, item: Item, found: Measured) -> Row:
    subject = WAYS.get(item.subject, item.subject)
    row: Row = {"workload": job.label, "subject": subject, "task": item.task}
    if not found.runs:
        return row | {"error": found.error or "not measured"}
    return row | {
        "error": None,
        # Of one that was ended the runs that it had made count.
        "note": found.error,
        "runs": len(found.runs),
        "seconds": found.seconds,
        "per_second": job.workload.batch / found.seconds,
        "peak": found.peak_bytes,
    }
