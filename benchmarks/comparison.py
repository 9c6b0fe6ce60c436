"""Comparisons of one workload's subjects: flowzoo, the floor under it, and the peers that can express it."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.interleave import Measured, Spec, compare
from benchmarks.peers import LIBRARIES, peers_of
from benchmarks.sections import Result, Settings, chosen, row, spec
from benchmarks.workloads import FROZEN, HELD, TASKS, Workload, glow

UNIFORM = {"dequantization": "uniform"}
PLAIN = {"network": "conv", "network_batch_norm": False, "normalization": "actnorm"}


def speed(settings: Settings) -> Result:
    """Glow and its peers against the floor."""
    return {"rows": _against_floor(chosen(glows(settings), settings.only), settings)}


def presets(settings: Settings) -> Result:
    """The other architectures' MNIST presets and their peers against the floors."""
    return {"rows": _against_floor(chosen(others(settings), settings.only), settings)}


def footprint(settings: Settings) -> Result:
    """Peak memory of a training step of every workload's subjects beyond weights and Adam's moments, in MiB."""
    rows = {}
    for name, workload in {**glows(settings), **others(settings)}.items():
        specs = {s: spec(s, workload, "train", memory=True) for s in _subjects(workload) if s != "plain"}
        inverted = Workload(**(workload.to_json() | {"memory": "invertible"}))
        specs["flowzoo, by inversion"] = spec("flowzoo", inverted, "train", memory=True)
        measured = compare(specs, 1 if settings.smallest else 3)
        rows[name] = {
            "mib": {s: _step_bytes(m) / 2**20 for s, m in measured.items() if m.error is None},
            "errors": {s: m.error for s, m in measured.items() if m.error},
        }
    return {"rows": rows}


def _step_bytes(measured: Measured) -> int:
    """Beyond weights and optimizer: before a step the last one's gradients are still there, and belong to a step."""
    return measured.extra_bytes + int(measured.result["gradient_bytes"])


def glows(settings: Settings) -> dict[str, Workload]:
    """The workloads of Glow."""
    if settings.smallest:
        return {"Glow, tiny": glow(2, 8, 16, levels=2, batch=2, edge_bias=False, device=settings.device)}
    return {
        f"Glow K={depth} L=3 hidden {hidden}{', edge bias' if edge_bias else ''}": glow(
            depth, hidden, edge_bias=edge_bias, device=settings.device
        )
        for edge_bias in (False, True)
        for depth, hidden in ((8, 128), (16, 64))
    }


def others(settings: Settings) -> dict[str, Workload]:
    """The MNIST presets of the other architectures, and variants of them that peers can express."""
    size, images, many = ("tiny", 2, 2) if settings.smallest else ("mnist", 32, 200)
    plain = PLAIN if settings.smallest else {}
    return {
        f"{model}-{size}{changed}": Workload(
            model=f"{model}-{size}", config=config, batch=batch, device=settings.device
        )
        for model, batch, changed, config in (
            ("realnvp", images, "", {}),
            ("realnvp", images, ", uniform noise", UNIFORM | plain),
            ("flowpp", images, "", {}),
            ("nice", many, "", {}),
            ("nice", many, ", Gaussian base", {"base": "normal"}),
        )
    }


def _subjects(workload: Workload) -> tuple[str, ...]:
    return ("floor", "flowzoo", "plain", *(library for library in LIBRARIES if library in peers_of(workload)))


def _against_floor(workloads: Mapping[str, Workload], settings: Settings) -> Result:
    rows: Result = {}
    for name, workload in workloads.items():
        subjects = _subjects(workload) if settings.peers else ("floor", "flowzoo", "plain")
        specs: dict[str, Spec] = {s: spec(s, workload, *TASKS) for s in subjects}
        specs["flowzoo"] = spec("flowzoo", workload, *TASKS, FROZEN, HELD)
        measured: dict[str, Measured] = compare(specs, settings.repeats, settings.starts)
        for task in TASKS:
            runs = {s: m.of(task) for s, m in measured.items()}
            if task == "log_prob":
                runs["flowzoo, frozen"] = measured["flowzoo"].of(FROZEN)
                runs["flowzoo, frozen, gradients held"] = measured["flowzoo"].of(HELD)
            rows[f"{name}: {task}"] = row(runs, "floor")
    return rows
