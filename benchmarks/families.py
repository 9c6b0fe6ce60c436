"""The flows after the couplings beside the peers that can express them, and samplers beside the plain loop."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.interleave import Measured, Spec, compare
from benchmarks.peers import LIBRARIES, SPECIAL, peers_of
from benchmarks.sections import Result, Settings, chosen, row, spec
from benchmarks.workloads import FROZEN, TASKS, Run, Task, Workload, build, void
from flowzoo.flow import Flow

STIRRED = {"residual": 0.1}
"""Standard deviation of what is added to all weights, so that no map is the identity; of residual blocks enough that
their layers have the largest norms that they may have, as trained ones do."""

LITTLE = 0.02
"""The same for all others."""

LOOPED = 3
"""Runs of the plain loops at most, which take seconds each."""


def workloads(settings: Settings) -> dict[str, Workload]:
    """What is measured, by label."""
    return {
        name: Workload(
            model=model,
            config=config,
            batch=batch,
            device=settings.device,
            stirred=STIRRED.get(model, LITTLE),
        )
        for name, model, config, batch in (_SMALLEST if settings.smallest else _WORKLOADS)
    }


_MAF = {"layers": 5, "hidden": (512, 512), "normalization": "none"}
_NSF = {"bins": 8, "tail_bound": 3.0}
_NAF = {"conditioner": "autoregressive", "units": 16, "features": 100}
_RESIDUAL = {"preprocessing": "center", "initial_squeeze": True, "fc_blocks": 0}
_FFJORD = {"blocks": 1, "learn_time": False}
_POINTS = {**_FFJORD, "dims": 2, "trace": "exact", "activation": "tanh"}
_IMAGES = {**_FFJORD, "scales": 1, "squeeze_first": True}

_WORKLOADS: tuple[tuple[str, str, dict[str, Any], int], ...] = (
    ("MAF, 63 values, 5 layers of 512, 512", "maf", {"dims": 63, **_MAF}, 100),
    (
        "NSF, 64 values, 6 couplings of 256, 256",
        "splines",
        {"dims": 64, "steps": 6, "features": 256, **_NSF},
        100,
    ),
    ("NSF, 28x28, 2 levels of 4 couplings", "splines", {"image_shape": (1, 28, 28), **_NSF}, 16),
    ("NAF, 6 values, 5 layers of 100", "naf", {"dims": 6, "steps": 5, **_NAF}, 100),
    (
        "Residual Flow, 8 values, 10 blocks of 128",
        "residual",
        {"dims": 8, "blocks": (10,), "channels": 128},
        100,
    ),
    (
        "Residual Flow, 28x28, 4 blocks of 32",
        "residual",
        {"image_shape": (1, 28, 28), "blocks": (4,), "channels": 32, **_RESIDUAL},
        16,
    ),
    ("FFJORD, 2 values, exact trace", "ffjord", {"steps": 8, **_POINTS}, 500),
    ("FFJORD, 28x28, 4 steps", "ffjord", {"image_shape": (1, 28, 28), "hidden": (32, 32), **_IMAGES}, 16),
)

_SMALLEST: tuple[tuple[str, str, dict[str, Any], int], ...] = (
    ("MAF, tiny", "maf", {"dims": 3, **_MAF, "layers": 2, "hidden": (8, 8)}, 4),
    ("NSF, tiny", "splines", {"dims": 4, "steps": 2, "features": 8, **_NSF}, 4),
    ("NSF, tiny images", "splines", {"image_shape": (1, 8, 8), "steps": 1, "features": 4, **_NSF}, 2),
    ("NAF, tiny", "naf", {"dims": 3, "steps": 2, **_NAF, "features": 8}, 4),
    ("Residual Flow, tiny", "residual", {"dims": 3, "blocks": (2,), "channels": 8}, 4),
    (
        "Residual Flow, tiny images",
        "residual",
        {"image_shape": (1, 8, 8), "blocks": (1,), "channels": 4, **_RESIDUAL},
        2,
    ),
    ("FFJORD, tiny", "ffjord", {"steps": 2, **_POINTS, "hidden": (8,)}, 4),
    ("FFJORD, tiny images", "ffjord", {"image_shape": (1, 8, 8), "hidden": (4,), "steps": 2, **_IMAGES}, 2),
)


def families(settings: Settings) -> Result:
    """Training step, density and sample of the later flows and their peers, relative to flowzoo's."""
    rows: Result = {}
    for name, workload in chosen(workloads(settings), settings.only).items():
        able = peers_of(workload) if settings.peers else ()
        specs: dict[str, Spec] = {"flowzoo": spec("flowzoo", workload, *TASKS, FROZEN)}
        specs |= {peer: spec(peer, workload, *TASKS) for peer in (*LIBRARIES, *SPECIAL) if peer in able}
        measured = compare(specs, settings.repeats, settings.starts)
        for task in TASKS:
            runs = {subject: m.of(task) for subject, m in measured.items()}
            if task == "log_prob":
                runs["flowzoo, frozen"] = measured["flowzoo"].of(FROZEN)
            rows[f"{name}: {task}"] = row(runs, "flowzoo")
    return {"rows": rows}


def looped(settings: Settings) -> dict[str, Workload]:
    """Models whose samples take one step after the other."""
    size, many, one = ("tiny", 2, 2) if settings.smallest else ("mnist", 16, 1)
    return {
        f"{model}-{size}, batch {batch}": Workload(
            model=f"{model}-{size}", batch=batch, device=settings.device, stirred=LITTLE
        )
        for model, batch in (("maf", many), ("tarflow", many), ("pixelcnn", one))
    }


def loops(settings: Settings) -> Result:
    """Samples of autoregressive flows beside the loop that evaluates the whole network for each value or patch."""
    rows: Result = {}
    for name, workload in chosen(looped(settings), settings.only).items():
        specs = {subject: spec(subject, workload, "sample", warm_up=1) for subject in ("flowzoo", "loop")}
        measured: dict[str, Measured] = compare(specs, min(settings.repeats, LOOPED))
        rows[name] = row(measured, "flowzoo")
    return {"rows": rows}


def looping(flow: Flow) -> Flow:
    """The flow, whose autoregressive parts are inverted by the plain loop from now on."""
    for module in flow.modules():
        if hasattr(module, "_one_by_one"):
            # The autoregressive bijectors of all plugins have both.
            module._one_by_one = module._with_gradients
    return flow


def loop_task(workload: Workload, task: Task) -> Run:
    """A sample by the plain loop: for each value, pixel or patch the whole network once, and nothing kept.

    It is what the plugins do where gradients flow through samples, here without gradients.
    """
    assert task == "sample"
    flow = looping(build(workload)[0].eval())
    generator = torch.Generator(workload.device).manual_seed(0)
    options: dict[str, Any] = {"generator": generator, "batch_size": workload.batch}
    return lambda: void(flow.sample(workload.batch, **options))
