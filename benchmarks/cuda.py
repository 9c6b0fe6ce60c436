"""Speed and memory on a GPU: the ways to run a flow there beside its floor and its peers, in under ten minutes."""

from __future__ import annotations

import importlib.util
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleave import Measured, Worker
from benchmarks.peers import BUILDERS, LIBRARIES, peers_of
from benchmarks.sections import spec
from benchmarks.workloads import TASKS, Run, Task, Workload, build, glow, void

MINUTES = 9.0
"""No process begins after that."""

LONGEST = {"compiled": 150.0}
"""Seconds that the process of a subject may take; compiling takes its time."""

SECONDS = 75.0
"""The same for all others."""


def main(device: str, out: Path, repeats: int, *, smallest: bool = False, minutes: float = MINUTES) -> None:
    """Measures all workloads on a device and writes docs/cuda.md, of a CPU only into another folder."""
    from tools.cuda.__main__ import lacking
    from tools.cuda.on_path import plugins_on_path

    if reason := lacking(device):
        print(f"skipped: {reason}", file=sys.stderr)  # noqa: T201
        return
    with plugins_on_path():
        from tools.cuda.page import add

        rows: list[dict[str, Any]] = []
        for row in measure(device, repeats, smallest, time.monotonic() + 60 * minutes):
            rows.append(row)
            # After each, so that a run that is cut short has not been for nothing.
            add(out, "speed", rows, device)


def workloads(device: str, smallest: bool) -> dict[str, Workload]:
    """What is measured, by label."""
    if smallest:
        return {"glow, 4": glow(1, 8, 8, levels=1, batch=4, device=device)}
    return {
        "glow K=32 L=3 hidden 512, 64": glow(32, 512, batch=64, device=device),
        "realnvp-cifar10, 64": Workload(model="realnvp-cifar10", batch=64, device=device),
        "flowpp-cifar10, 64": Workload(model="flowpp-cifar10", batch=64, device=device),
        "tarflow-cifar10, 64": Workload(model="tarflow-cifar10", batch=64, device=device),
        "glow K=32 L=3 hidden 512, 512": glow(32, 512, batch=512, device=device),
    }


def subjects(workload: Workload) -> list[str]:
    """Who is measured on a workload, the cheapest and most telling first: peers are those that are importable."""
    able = peers_of(workload) if workload.architecture in BUILDERS else ()
    peers = [name for name in LIBRARIES if name in able and importlib.util.find_spec(name) is not None]
    return ["floor", "plain", "flowzoo", "graphs", *peers, "compiled"]


def measure(device: str, repeats: int, smallest: bool, deadline: float) -> Iterator[dict[str, Any]]:
    """A row for each workload, subject and task: images a second, multiple of the floor's time, peak memory."""
    for label, workload in workloads(device, smallest).items():
        floor: dict[str, float] = {}
        for subject in subjects(workload):
            print(f"{label}: {subject} ...", file=sys.stderr, flush=True)  # noqa: T201
            found = _measured(subject, workload, TASKS, repeats, deadline)
            if found.error and subject in SUBJECTS:
                # What cannot be captured or compiled for one task may be for another.
                apart = {task: _measured(subject, workload, (task,), repeats, deadline) for task in TASKS}
            else:
                apart = {task: found.of(task) for task in TASKS}
            for task in TASKS:
                own = apart[task]
                if subject == "floor":
                    floor[task] = own.seconds
                yield _row(label, subject, task, own, floor.get(task, math.nan), workload.batch)


def _row(label: str, subject: str, task: Task, found: Measured, floor: float, batch: int) -> dict[str, Any]:
    name = {"flowzoo": "engine", "compiled": "torch.compile", "graphs": "CUDA graphs"}.get(subject, subject)
    row: dict[str, Any] = {"workload": label, "subject": name, "task": task}
    if found.error or not found.runs:
        return row | {"error": found.error or "not measured"}
    ratio = found.seconds / floor
    return row | {
        "error": None,
        "seconds": found.seconds,
        "per_second": batch / found.seconds,
        "of_floor": ratio if math.isfinite(ratio) else None,
        "peak": found.peak_bytes,
    }


def _measured(
    subject: str, workload: Workload, tasks: tuple[Task, ...], repeats: int, deadline: float
) -> Measured:
    """The runs of a subject in a process of its own, which is ended when its time is over."""
    limit = min(LONGEST.get(subject, SECONDS), deadline - time.monotonic())
    if limit <= 0:
        return Measured(error="no time was left")
    worker = Worker(spec(subject, workload, *tasks, wall=True, warm_up=3))
    timer = threading.Timer(limit, worker.process.kill)
    timer.start()
    try:
        if worker.wait():
            for _ in range(repeats):
                worker.run()
        worker.end()
    except (BrokenPipeError, ValueError):
        worker.measured.error = worker.measured.error or "ended"
    finally:
        late = not timer.is_alive()
        timer.cancel()
    if late:
        worker.measured.error = f"not done after {limit:.0f} s"
    return worker.measured


def _pieces(workload: Workload, task: Task, wrap: Callable[[Any], Any], **adam: Any) -> Run:
    """A task with its function wrapped: training step, ``log_prob``, or the bijector's inverse of a latent."""
    flow, images = build(workload)
    if task == "train":
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True, **adam)
        call = wrap(flow)

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            flow.nats_to_bits(call(images)).mean().backward()
            optimizer.step()

        return train
    flow.eval()
    if task == "log_prob":
        called = wrap(flow)
        return torch.no_grad()(lambda: void(called(images)))
    # The checks that sampling makes of its result wait for the device, which a graph cannot.
    z = torch.randn(workload.batch, flow.latent_dims, device=workload.device)
    invert = wrap(flow.bijector.inverse)
    return torch.no_grad()(lambda: void(invert(z)))


def compiled_task(workload: Workload, task: Task) -> Run:
    """A task under ``torch.compile``, the forward pass and with it the backward pass."""
    # On a CPU, where this is only tried, without a compiler of C++.
    backend = "inductor" if workload.device.startswith("cuda") else "aot_eager"
    return _pieces(workload, task, lambda function: torch.compile(function, backend=backend))


def graph_task(workload: Workload, task: Task) -> Run:
    """A task, update included, captured once as a CUDA graph and replayed."""
    if not torch.cuda.is_available():
        raise RuntimeError("there are CUDA graphs on CUDA alone")
    run = _pieces(
        workload, task, lambda function: function, **({"capturable": True} if task == "train" else {})
    )
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


SUBJECTS: dict[str, Callable[[Workload, Task], Run]] = {"compiled": compiled_task, "graphs": graph_task}
