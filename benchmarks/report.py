"""Results as a page of Markdown: machine, versions, and a table of ratios for each section."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.peers import LIBRARIES, NOTES, OTHERS, SPECIAL

Result = dict[str, Any]
MEMORY_MODES = ("store", "checkpoint", "invertible")
SUBJECTS = (
    "flowzoo",
    "flowzoo, frozen",
    "flowzoo, frozen, gradients held",
    "plain",
    *LIBRARIES,
    *SPECIAL,
    "loop",
)
CONTENDED = 0.1
"""Cores held by others from which on the clock on the wall says little on this machine."""
PACKAGES = ("torch", "flowzoo", *LIBRARIES, *SPECIAL)


def machine() -> Result:
    """The machine and the versions that the numbers belong to."""
    import torch

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu(), "gpu": gpu, "system": platform.system(), "python": platform.python_version()} | {
        "versions": versions
    }


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def page(results: Result, pictures: Iterable[str]) -> str:
    """The whole page."""
    told = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    parts = [
        "# Benchmarks",
        "Written by `python -m benchmarks`; do not edit. Every number is a ratio of two subjects that ran in turn, "
        "each in its own process, with one thread; each subject's time is its fastest run, in processor seconds, so "
        "that neighbours on the machine count little, and its allocator keeps what is freed, so that it is not chance "
        "who waits for the system to give pages again. Scaling with threads and processes is by the clock on the wall.",
        f"Machine: {told['cpu']}, {told['gpu'] or 'no GPU'}, {told['system']}, Python {told['python']}. {versions}.",
    ]
    available = set(pictures)
    for name, render in RENDERERS.items():
        if name in results:
            parts.append(render(results[name]))
            parts += _contention(name, results.get("others", {}).get(name))
            parts += _measured(results.get("measured", {}).get(name))
            if f"{name}.png" in available:
                parts.append(f"![{name}](images/benchmarks/{name}.png)")
    return "\n\n".join(parts) + "\n"


def _contention(name: str, others: float | None) -> list[str]:
    """A remark on other processes on the machine, where wall-clock time was read."""
    if name not in ("scaling", "data_parallel"):
        return []
    if others is None:
        return ["Not known: how much of the machine other processes held meanwhile."]
    told = f"Meanwhile other processes held {others:.2f} cores on average."
    what = "the sweep of threads" if name == "scaling" else "the efficiency"
    return [told + (f" **Contended: {what} says nothing here.**" if others >= CONTENDED else "")]


def _measured(record: Result | None) -> list[str]:
    """The day of a section, since each may be measured on its own, with the code as it was on that day."""
    if record is None:
        return []
    told = f"Measured on {record['day']}"
    if "starts" in record:
        told += f": {record['repeats']} runs in each of {record['starts']} processes"
    return [told + "."]


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _speed(result: Result) -> str:
    return "\n\n".join(
        [
            "## Speed relative to the floor",
            "The floor is the coupling networks alone, bare convolutions and ReLUs, channels last: forward and "
            "backward for training, forward for `log_prob` and sampling. A training step includes Adam. All subjects "
            "are given images of grey levels, to which they add uniform noise, and give such images, in float32.",
            *_own_subjects(result["rows"]),
            *_against_floor(result["rows"]),
            *_notes("glow"),
        ]
    )


def _presets(result: Result) -> str:
    return "\n\n".join(
        [
            "## The other architectures relative to their floors",
            "Here the floor is the networks inside the couplings as they are, on what reaches them. Batches of 32 "
            "images, of 200 for NICE. A library's empty cell: it cannot express the workload.",
            *_own_subjects(result["rows"]),
            *_against_floor(result["rows"]),
            *_notes("realnvp", "nice", "flowpp"),
        ]
    )


def _families(result: Result) -> str:
    return "\n\n".join(
        [
            "## The later flows relative to flowzoo",
            "Times relative to flowzoo's, so that a number above 1 is a peer that is slower. The same shapes, the same "
            "batch, float32; all weights are random and none is zero. A training step includes Adam. *flowzoo, "
            "frozen* is `log_prob` inside `flow.frozen()`.",
            *_against_floor(result["rows"]),
            *_notes("maf", "splines", "naf", "residual", "ffjord"),
            OTHERS,
        ]
    )


def _loops(result: Result) -> str:
    return "\n\n".join(
        [
            "## Samples of autoregressive flows relative to flowzoo",
            "The *loop* evaluates the whole network once for each value (MAF), patch (TarFlow) or pixel (PixelCNN). "
            "flowzoo computes each hidden unit once (MAF, PixelCNN) and keeps keys and values (TarFlow). Untrained "
            "models with random weights.",
            *_against_floor(result["rows"]),
        ]
    )


def _own_subjects(rows: Result) -> list[str]:
    """The meaning of flowzoo's own columns, where they were measured."""
    if not any("plain" in row["ratios"] for row in rows.values()):
        return []
    return [
        "*plain* is flowzoo with its engine off (`FLOWZOO_ENGINE=0`). `log_prob` of *flowzoo* reads the weights as "
        "they are in every call; *flowzoo, frozen* is `log_prob` inside `flow.frozen()`, which keeps what is made of "
        "them. *gradients held* is the same while every parameter still has its gradient, as in an evaluation during "
        "training. `sample` freezes by itself for the length of its call."
    ]


def _notes(*workloads: str) -> list[str]:
    names = {
        "glow": "Glow",
        "realnvp": "RealNVP",
        "nice": "NICE",
        "flowpp": "Flow++",
        "maf": "MAF",
        "splines": "NSF",
        "naf": "NAF",
        "residual": "Residual Flow",
        "ffjord": "FFJORD",
    }
    listed = []
    for workload in workloads:
        lines = [f"- **{library}**: {note}" for library, note in NOTES[workload].items()]
        listed.append(f"{names[workload]} by the peers:\n\n" + "\n".join(lines))
    return listed


def _footprint(result: Result) -> str:
    header = ("floor", "flowzoo", "flowzoo, by inversion", *LIBRARIES)
    table = [
        [name, *("" if (mib := row["mib"].get(s)) is None else f"{mib:.1f}" for s in header)]
        for name, row in result["rows"].items()
    ]
    return "\n\n".join(
        [
            "## Peak memory of a training step",
            "MiB at the peak of a step beyond weights and Adam's moments: activations, gradients, and what the "
            "backward pass works with. The same workloads as above, each subject in a process of its own whose freed "
            "memory goes back to the system at once.",
            _table(["workload", *header], table),
            *_failures(result["rows"]),
        ]
    )


def _against_floor(rows: Result) -> list[str]:
    present = {subject for row in rows.values() for subject in row["ratios"]}
    subjects = [subject for subject in SUBJECTS if subject in present]
    table = [[name, *(_ratio(row["ratios"].get(s)) for s in subjects)] for name, row in rows.items()]
    return [_table(["workload", *subjects], table), *_failures(rows)]


def _failures(rows: Result) -> list[str]:
    errors = {
        f"{name}, {subject}: {error}"
        for name, row in rows.items()
        for subject, error in row["errors"].items()
    }
    return ["Not measured: " + "; ".join(sorted(errors))] if errors else []


def _memory(result: Result) -> str:
    header = [f"{mode}: {what}" for mode in MEMORY_MODES for what in ("MiB", "time")]
    tables = []
    for key, label in (("by_depth", "K"), ("by_size", "image size")):
        rows = [[x, *_memory_cells(result[key][x])] for x in sorted(result[key], key=int)]
        tables.append(_table([label, *header], rows))
    return "\n\n".join(
        [
            "## Memory against depth and image size",
            "Peak memory above weights, gradients and optimizer, and time relative to `store`. Against depth: Glow, "
            "three levels, hidden 32, 64x64, batch 4. Against image size: the same with K=4.",
            *tables,
            f"By inversion, from the least to the greatest depth the step's memory grows by {result['growth']:.1%}, "
            f"which is {result['growth_of_all']:.1%} of what weights, gradients and optimizer then take.",
        ]
    )


def _memory_cells(modes: Result) -> list[str]:
    cells = [(f"{modes[m]['step_mib']:.1f}", _ratio(modes[m]["time"])) for m in MEMORY_MODES]
    return [text for pair in cells for text in pair]


def _celebahq(result: Result) -> str:
    text = (
        result["error"]
        or f"Peak {result['peak_mib']:.0f} MiB for the whole process, of which {result['parameters_mib']:.0f} MiB are "
        f"weights, gradients and Adam's moments and {result['step_mib']:.0f} MiB are the step."
    )
    return f"## The paper's CelebA-HQ Glow: one training step by inversion, 256x256, L=6, K=32, batch 1\n\n{text}"


def _mixture(result: Result) -> str:
    rows = [
        [
            name,
            _ratio(row["ratios"].get("inverse")),
            f"{row['max_error']:.1e}" if row.get("max_error") else "",
        ]
        for name, row in result["rows"].items()
    ]
    header = ["", "inverse / forward", "largest error of x in float32"]
    return "## Inverse of the logistic mixture\n\n" + _table(header, rows)


def _drift(result: Result) -> str:
    rows = [[key.replace("_", " "), f"{value:.3g}"] for key, value in result.items() if key != "error"]
    text = (
        "A random Glow in float32: the largest inversion error in units of the [0, 1] pixel range and in grey levels, "
        "and the relative error of the whole gradient against float64, stored and rebuilt by inversion. "
        "`memory='invertible'` warns where a reconstruction is off by more than 1e-2 of the input's RMS."
    )
    return f"## Drift over 200 couplings\n\n{text}\n\n" + _table(["", "value"], rows)


def _startup(result: Result) -> str:
    rows = [[f"`{name}`", _ratio(value)] for name, value in result["ratios"].items()]
    return "## Start-up, whole processes\n\n" + _table(["command", "relative to `import click`"], rows)


def _loading(result: Result) -> str:
    if "error" in result:
        return f"## Loading\n\nNot measured: {result['error']}."
    shares = ", ".join(f"{key} {value:.0%}" for key, value in result["split"].items())
    ratios = result["ratios"]
    return (
        f"## Loading\n\n`flowzoo.load({result['model']!r})` ({result['bytes'] / 2**20:.1f} MiB) takes "
        f"{_ratio(ratios.get('load'))} times a bare hash and read into a built module (of which: {shares}); "
        f"building the module alone takes {_ratio(ratios.get('build'))} times that."
    )


def _scaling(result: Result) -> str:
    rows = [[name, _points(sweep["relative"]), f"{sweep['exponent']:.2f}"] for name, sweep in result.items()]
    text = "Images per second relative to the first point, and the exponent of a power law fitted to all points. "
    text += "Base: Glow K=4 L=2 hidden 64, 32x32, batch 16. The sweep of threads is by the clock on the wall, the "
    text += "others in processor seconds."
    return f"## Scaling\n\n{text}\n\n" + _table(["sweep", "relative throughput", "exponent"], rows)


def _points(relative: dict[str, float]) -> str:
    return ", ".join(f"{x}: {relative[x]:.2f}" for x in sorted(relative, key=int))


def _data_parallel(result: Result) -> str:
    text = result.get("errors") or f"{result['efficiency']:.0%}"
    return (
        "## Two processes\n\nEfficiency of two gloo processes on this machine, each with the batch of one, by the "
        f"clock on the wall: {text}."
    )


def _costs(result: Result) -> str:
    kinds = list(result["peak_tflops"])
    rows = [
        [
            name,
            f"{row['gflop_per_image']:.2f}",
            f"{row.get('passes', 3)}",
            f"{row['images'] / 1e6:.1f} M",
            f"{row['exaflop']:.1f}",
            *(f"{row['hours'][kind]:.1f} / {row['hours'][kind] / 8:.1f}" for kind in kinds),
        ]
        for name, row in result["rows"].items()
    ]
    header = [
        "model",
        "GFLOP forward",
        "passes",
        "images",
        "EFLOP",
        *(f"hours on 1 / 8 GPUs, {kind}" for kind in kinds),
    ]
    peaks = ", ".join(f"{kind} {peak:.0f} TFLOP/s" for kind, peak in result["peak_tflops"].items())
    text = (
        f"Estimates, not measurements. Operations are counted from one image's forward pass (a multiply-add is two); "
        f"training takes three forward passes an image, four where the recipe does not store activations but computes "
        f"them again, times steps x batch of the recipe, over {result['gpu']}'s "
        f"dense peak ({peaks}) at an assumed utilization of {result['utilization']:.0%}. Eight GPUs are taken to be "
        "eight times one."
    )
    return f"## What the papers' recipes cost\n\n{text}\n\n" + _table(header, rows)


RENDERERS = {
    "speed": _speed,
    "presets": _presets,
    "families": _families,
    "loops": _loops,
    "footprint": _footprint,
    "memory": _memory,
    "celebahq": _celebahq,
    "mixture": _mixture,
    "drift": _drift,
    "startup": _startup,
    "loading": _loading,
    "scaling": _scaling,
    "data_parallel": _data_parallel,
    "costs": _costs,
}
