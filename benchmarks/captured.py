"""Two more ways to run a flow's tasks on a GPU: under ``torch.compile``, and as a CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.workloads import Run, Task, Workload, build, void

UNROLLED = {
    "flowpp": "a sample searches for roots until all are found, hundreds of steps, and asks which are not yet",
    "tarflow": "a sample is hundreds of steps one after the other, which would all be unrolled",
}
"""Architectures whose sampling is neither captured nor compiled, and why."""


def hopeless(subject: str, workload: Workload, task: Task) -> str | None:
    """Why a task is not to be captured or compiled; None if it may be."""
    if subject == "graphs" and not workload.device.startswith("cuda"):
        return "there are CUDA graphs on CUDA alone"
    return UNROLLED.get(workload.architecture) if task == "sample" else None


def compiled_task(workload: Workload, task: Task) -> Run:
    """A task under ``torch.compile``, the forward pass and with it the backward pass."""
    # On a CPU, where this is only tried, without a compiler of C++.
    backend = "inductor" if workload.device.startswith("cuda") else "aot_eager"
    if task == "sample":
        flow, z = _latent(workload)
        invert: Callable[[torch.Tensor], object] = torch.compile(flow.bijector.inverse, backend=backend)
        return torch.no_grad()(lambda: void(invert(z)))
    return _pieces(workload, task, lambda function: torch.compile(function, backend=backend))


def graph_task(workload: Workload, task: Task) -> Run:
    """A task, update included, captured once as a CUDA graph and replayed; samples with the weights frozen."""
    if task == "sample":
        run = _sample_frozen(workload)
    else:
        adam = {"capturable": True} if task == "train" else {}
        run = _pieces(workload, task, lambda function: function, **adam)
    with _capturable_linear_algebra():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()

    # The graph knows addresses alone: weights, images and the optimizer's state are to be there as long as it is.
    def replay(_held: Run = run) -> None:
        graph.replay()

    return replay


SUBJECTS: dict[str, Callable[[Workload, Task], Run]] = {"compiled": compiled_task, "graphs": graph_task}


def _pieces(workload: Workload, task: Task, wrap: Callable[[Any], Any], **adam: Any) -> Run:
    """A training step or ``log_prob`` of the wrapped flow."""
    flow, images = build(workload)
    call = wrap(flow)
    if task != "train":
        flow.eval()
        return torch.no_grad()(lambda: void(call(images)))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True, **adam)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        flow.nats_to_bits(call(images)).mean().backward()
        optimizer.step()

    return train


def _sample_frozen(workload: Workload) -> Run:
    """The inverse of a latent by the engine: inverse matrices, which a capture cannot wait for, are there before it."""
    flow, z = _latent(workload)
    kept = contextlib.ExitStack()
    kept.enter_context(flow.frozen())

    @torch.no_grad()
    def sample(_: contextlib.ExitStack = kept) -> None:
        flow.engine.run(flow.bijector, z, inverse=True)

    return sample


def _latent(workload: Workload) -> tuple[Any, torch.Tensor]:
    # The checks that sampling makes of its result wait for the device, which a graph cannot.
    flow, _ = build(workload)
    flow.eval()
    return flow, torch.randn(workload.batch, flow.latent_dims, device=workload.device)


@contextlib.contextmanager
def _capturable_linear_algebra() -> Iterator[None]:
    """Determinants by cuSOLVER: MAGMA, which torch may choose for batches of float64, waits for the device."""
    before = torch.backends.cuda.preferred_linalg_library()
    torch.backends.cuda.preferred_linalg_library("cusolver")
    try:
        yield
    finally:
        torch.backends.cuda.preferred_linalg_library(before)
