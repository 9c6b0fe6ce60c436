"""The sections of the benchmark: each runs its comparisons and returns plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from benchmarks.interleave import Measured, Spec, compare
from benchmarks.workloads import Workload, glow

MEMORY_MODES = ("store", "checkpoint", "invertible")
Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        repeats: Runs of each subject in a process.
        starts: Processes of each subject, where small differences count.
        smallest: Whether every section shrinks to its smallest workload, to see that it works.
        device: Where models run.
        peers: Whether other libraries are measured, too.
        only: Text in the names of the workloads of comparisons that are measured; all have the empty one.
    """

    repeats: int = 7
    starts: int = 3
    smallest: bool = False
    device: str = "cpu"
    peers: bool = True
    only: str = ""

    def record(self, section: str) -> Result:
        """How and on which day a section was measured, for the page."""
        day: Result = {"day": datetime.now(UTC).date().isoformat()}
        timed = section in ("speed", "presets", "families", "memory")
        return day | ({"repeats": self.repeats, "starts": self.starts} if timed else {})


def chosen(found: dict[str, Workload], only: str) -> dict[str, Workload]:
    """The workloads whose names have the text that was asked for."""
    kept = {name: workload for name, workload in found.items() if only in name}
    if not kept:
        raise click.UsageError(f"no workload has {only!r} in its name; there are: {'; '.join(found)}.")
    return kept


def spec(subject: str, workload: Workload, *tasks: str, **others: Any) -> Spec:
    """The description of a job: all that a worker needs to measure a subject's tasks on a workload."""
    return {"subject": subject, "workload": workload.to_json(), "tasks": tasks, **others}


def row(measured: Mapping[str, Measured], base: str) -> Result:
    """Seconds of every subject relative to one, and what went wrong."""
    ratios = {name: m.seconds / measured[base].seconds for name, m in measured.items() if m.error is None}
    return {"ratios": ratios, "errors": {name: m.error for name, m in measured.items() if m.error}}


def memory(settings: Settings) -> Result:
    """Peak memory of a training step against depth and against image size, for what the backward pass may keep."""
    depths = (1, 2) if settings.smallest else (8, 16, 32, 64)
    sizes = (8, 16) if settings.smallest else (32, 64, 128, 256)
    size, hidden, levels = (8, 8, 2) if settings.smallest else (64, 32, 3)
    by_depth = {
        str(k): _memory(glow(k, hidden, size, levels=levels, batch=4, device=settings.device), settings)
        for k in depths
    }
    by_size = {
        str(s): _memory(glow(4, hidden, s, levels=levels, batch=4, device=settings.device), settings)
        for s in sizes
    }
    first, last = by_depth[str(depths[0])]["invertible"], by_depth[str(depths[-1])]["invertible"]
    return {
        "by_depth": by_depth,
        "by_size": by_size,
        "growth": last["step_mib"] / first["step_mib"] - 1,
        "growth_of_all": (last["step_mib"] - first["step_mib"]) / last["parameters_mib"],
    }


def _memory(workload: Workload, settings: Settings) -> Result:
    modes = {m: Workload(**(workload.to_json() | {"memory": m})) for m in MEMORY_MODES}
    measured = compare({m: spec("flowzoo", w, "train", memory=True) for m, w in modes.items()}, 1)
    # In processes of their own, which do not give back and ask for every tensor's memory.
    subjects = {m: spec("flowzoo", w, "train") for m, w in modes.items()}
    timed = compare(subjects, settings.repeats, settings.starts)
    return {
        name: {
            "step_mib": m.extra_bytes / 2**20,
            "parameters_mib": (m.result or {}).get("state_bytes", 0) / 2**20,
            "time": timed[name].seconds / timed["store"].seconds,
            "error": m.error or timed[name].error,
        }
        for name, m in measured.items()
    }


def celebahq(settings: Settings) -> Result:
    """One step of the paper's CelebA-HQ Glow (L=6, K=32, 256x256) at batch 1 by inversion."""
    config = {"image_shape": (3, 16, 16), "levels": 2, "depth": 2, "hidden_channels": 8}
    workload = Workload(
        model="glow-celebahq256",
        config=config if settings.smallest else {},
        batch=1,
        memory="invertible",
        device=settings.device,
    )
    measured = compare({"step": spec("flowzoo", workload, "train", memory=True, warm_up=1)}, 1)["step"]
    state = (measured.result or {}).get("state_bytes", 0)
    return {
        "peak_mib": measured.peak_bytes / 2**20,
        "step_mib": measured.extra_bytes / 2**20,
        "parameters_mib": state / 2**20,
        "error": measured.error,
    }


def mixture(settings: Settings) -> Result:
    """The mixture-logistic coupling backwards against forwards: with its network, and the elementwise map alone."""
    model, batch = ("flowpp-tiny", 2) if settings.smallest else ("flowpp-mnist", 16)
    rows: Result = {}
    for name, subject, arguments in (
        (f"coupling of {model}", "mixture", {"model": model, "batch": batch}),
        ("elementwise map, 8 components", "logit_cdf", {"components": 8, "elements": 8 * batch}),
    ):
        specs = {
            d: {"subject": subject, "arguments": {**arguments, "direction": d}}
            for d in ("forward", "inverse")
        }
        measured = compare(specs, settings.repeats)
        rows[name] = row(measured, "forward") | {"max_error": measured["inverse"].result}
    return {"rows": rows}


def drift(settings: Settings) -> Result:
    """Float32 errors two hundred couplings deep."""
    arguments = {"couplings": 200, "hidden": 32, "size": 16, "levels": 2}
    if settings.smallest:
        arguments |= {"couplings": 4, "hidden": 8, "size": 8}
    measured = compare({"drift": {"subject": "drift", "arguments": arguments, "warm_up": 0}}, 1)["drift"]
    return measured.result or {"error": measured.error}


def fitted_exponent(points: Mapping[float, float]) -> float:
    """Least-squares slope of log y over log x."""
    logs = [(math.log(x), math.log(y)) for x, y in points.items() if y > 0]
    mean_x, mean_y = (sum(v) / len(logs) for v in zip(*logs, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / spread if spread else float("nan")


Section = Callable[[Settings], Result]
