"""Scaling: throughput against batch, threads, depth, width and image size; two processes; what papers' recipes cost."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import flowzoo
from benchmarks.interleave import Spec, compare
from benchmarks.sections import Result, Settings, fitted_exponent
from benchmarks.workloads import glow
from flowzoo.training.train import find_recipe

GPU = "one H100 SXM"
PEAK_TFLOPS = {"TF32": 495.0, "bf16": 989.0}
UTILIZATION = 0.3
PAPERS = (
    "realnvp-cifar10",
    "glow-cifar10",
    "glow-imagenet32",
    "glow-imagenet64",
    "glow-celebahq256",
    "flowpp-cifar10",
)


def scaling(settings: Settings) -> Result:
    """Images per second relative to the first point of each sweep, and the exponent fitted to all."""
    small = settings.smallest
    base: dict[str, Any] = (
        {"depth": 2, "hidden": 8, "size": 8} if small else {"depth": 4, "hidden": 64, "size": 32}
    )
    sweeps: dict[str, tuple[int, ...]] = {
        "batch": (1, 2) if small else (1, 4, 16, 64),
        "threads": (1, 2),
        "depth": (1, 2) if small else (2, 4, 8, 16),
        "hidden": (4, 8) if small else (32, 64, 128, 256),
        "size": (8, 16) if small else (16, 32, 64, 128),
    }
    return {
        f"{task}, {name}": _sweep(settings, base, name, values, task)
        for name, values in sweeps.items()
        for task in ("train", "log_prob")
    }


def _sweep(settings: Settings, base: dict[str, Any], name: str, values: tuple[int, ...], task: str) -> Result:
    specs: dict[str, Spec] = {}
    batches: dict[str, int] = {}
    for value in values:
        shape = base | ({name: value} if name in base else {})
        batch = value if name == "batch" else 2 if settings.smallest else 16
        workload = glow(**shape, levels=2, batch=batch, device=settings.device)
        threads = value if name == "threads" else 1
        # Time of all threads against time of one only compares on the clock on the wall.
        wall = name == "threads"
        specs[str(value)] = {
            "subject": "flowzoo",
            "workload": workload.to_json(),
            "tasks": [task],
            "threads": threads,
            "wall": wall,
        }
        batches[str(value)] = batch
    measured = compare(specs, max(3, settings.repeats // 2))
    rates = {int(v): batches[v] / m.seconds for v, m in measured.items() if m.error is None}
    first = rates[min(rates)]
    return {
        "relative": {str(v): rate / first for v, rate in rates.items()},
        "exponent": fitted_exponent({float(v): rate for v, rate in rates.items()}),
    }


def data_parallel(settings: Settings) -> Result:
    """Efficiency of two gloo processes, each with the batch of one: time of one over time of two."""
    workload = glow(1, 8, 8, levels=2, batch=2) if settings.smallest else glow(8, 64, batch=16)
    specs: dict[str, Spec] = {
        str(world): {
            "subject": "data_parallel",
            "arguments": {
                "workload": workload.to_json(),
                "world": world,
                "steps": 3 if settings.smallest else 8,
            },
            "warm_up": 0,
            "wall": True,
        }
        for world in (1, 2)
    }
    measured = compare(specs, 1 if settings.smallest else 3)
    errors = {world: m.error for world, m in measured.items() if m.error}
    if errors:
        return {"errors": errors}
    best = {world: min(run["result"] for run in m.runs) for world, m in measured.items()}
    return {"efficiency": best["1"] / best["2"]}


def costs(settings: Settings) -> Result:
    """GPU-hours of the papers' recipes: 3 or 4 forward passes' operations an image, over peak times utilization."""
    names = ("glow-mnist",) if settings.smallest else PAPERS
    rows = {name: _cost(name) for name in names}
    return {"gpu": GPU, "peak_tflops": PEAK_TFLOPS, "utilization": UTILIZATION, "rows": rows}


def _cost(name: str) -> Result:
    # Operations follow from shapes alone, and on the meta device nothing but shapes is computed.
    flow = flowzoo.create(name, device="meta").requires_grad_(False)
    image = torch.zeros(1, *flow.image_shape, dtype=torch.uint8, device="meta")
    counter = FlopCounterMode(display=False)
    with counter:
        flow.log_prob(image)
    forward = float(counter.get_total_flops())
    # Some recipes leave the images to their user; which they are makes no difference here.
    recipe = find_recipe(name, ["data.dataset=folder:images"])
    if recipe.train.steps is None:
        raise ValueError(f"{name}'s recipe states no number of steps; choose one that does.")
    images_seen = recipe.train.steps * recipe.train.batch_size
    # The backward pass costs two forward passes; where activations are not stored, they are computed once more.
    passes = 3 if recipe.train.memory == "store" else 4
    total = passes * forward * images_seen
    hours = {kind: total / (peak * 1e12 * UTILIZATION) / 3600 for kind, peak in PEAK_TFLOPS.items()}
    return {
        "gflop_per_image": forward / 1e9,
        "passes": passes,
        "images": images_seen,
        "exaflop": total / 1e18,
        "hours": hours,
    }
