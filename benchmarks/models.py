"""Subjects about whole models: loading weights, and training in two processes."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

import flowzoo
from benchmarks.workloads import Workload, build, void
from flowzoo.manifest.read import load_manifests
from flowzoo.weights.hub import hub_settings
from flowzoo.weights.load import prepare
from flowzoo.weights.skip_init import build_to_load


def largest_bundled() -> tuple[str, Path] | None:
    """Name and file of the largest model that comes with the installed plugins."""
    found: list[tuple[int, str, Path]] = []
    for entry in load_manifests().entries:
        if entry.weights is not None and entry.status == "released":
            _, path = prepare(entry.name, hub_settings(offline=True))
            found.append((entry.weights.size, entry.name, path))
    return max(found)[1:] if found else None


def loading(name: str) -> Callable[[], None]:
    """``flowzoo.load`` of a bundled model."""
    return lambda: void(flowzoo.load(name, offline=True))


def bare_loading(name: str, path: str) -> Callable[[], dict[str, float]]:
    """The same file hashed and read by safetensors into a module that is already built; the split in seconds."""
    from safetensors.torch import load_file

    flow = flowzoo.load(name, offline=True)

    def run() -> dict[str, float]:
        start = time.process_time()
        hashlib.sha256(Path(path).read_bytes()).hexdigest()
        hashed = time.process_time()
        flow.load_state_dict(load_file(path))
        return {"hash": hashed - start, "read": time.process_time() - hashed}

    return run


def building(name: str) -> Callable[[], None]:
    """Only the construction of the module, as loading does it: what the file replaces is not drawn."""
    flow = flowzoo.load(name, offline=True)
    return lambda: void(build_to_load(str(flow.architecture), flow.config))


def data_parallel(workload: dict[str, Any], world: int, steps: int) -> Callable[[], float]:
    """Seconds a step of ``world`` gloo processes, one thread each, each with the workload's batch."""
    return lambda: _spawn(workload, world, steps)


def _spawn(workload: dict[str, Any], world: int, steps: int) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    arguments = [(rank, world, port, workload, steps, queue) for rank in range(world)]
    processes = [context.Process(target=_rank, args=given) for given in arguments]
    for process in processes:
        process.start()
    slowest = max(queue.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    return float(slowest)


def _rank(rank: int, world: int, port: int, workload: dict[str, Any], steps: int, queue: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    flow, images = build(Workload(**workload))
    parallel = torch.nn.parallel.DistributedDataParallel(flow)
    optimizer = torch.optim.Adam(flow.parameters(), fused=True)
    best = float("inf")
    for _ in range(steps):
        distributed.barrier()
        start = time.perf_counter()
        optimizer.zero_grad()
        parallel(images).mean().neg().backward()
        optimizer.step()
        best = min(best, time.perf_counter() - start)
    queue.put(best)
    distributed.destroy_process_group()


SUBJECTS: dict[str, Callable[..., Callable[[], Any]]] = {
    "loading": loading,
    "bare_loading": bare_loading,
    "building": building,
    "data_parallel": data_parallel,
}
