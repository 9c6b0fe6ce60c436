"""The benchmark's pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sections import fitted_exponent

MODES = ("store", "checkpoint", "invertible")
COLOURS = {
    "flowzoo": "C0",
    "flowzoo, frozen": "#8fbbdc",
    "flowzoo, frozen, gradients held": "#c6dbef",
    "plain": "C7",
    "normflows": "C1",
    "nflows": "C2",
    "FrEIA": "C3",
    "zuko": "C4",
}
SWEEPS = {
    "batch": "batch size",
    "depth": "depth K",
    "hidden": "hidden channels",
    "size": "image side, pixels",
    "threads": "threads",
}


def draw(results: dict[str, Any], folder: Path) -> list[str]:
    """Writes a PNG for every section that has one; returns their names."""
    import matplotlib as mpl

    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    if "memory" in results:
        drawn += [_memory(results["memory"], folder)]
    if "scaling" in results:
        drawn += [_scaling(results["scaling"], folder, results.get("others", {}).get("scaling"))]
    for name in ("speed", "presets"):
        if name in results:
            drawn += [_bars(results[name]["rows"], folder, f"{name}.png")]
    return drawn


def _memory(result: dict[str, Any], folder: Path) -> str:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    titles = ("Glow, L=3, hidden 32, 64x64, batch 4", "Glow, K=4, L=3, hidden 32, batch 4")
    labels = ("depth K, steps of a level", "image side, pixels")
    for axis, key, label, title in zip(axes, ("by_depth", "by_size"), labels, titles, strict=True):
        xs = sorted(map(int, result[key]))
        for mode in MODES:
            ys = [result[key][str(x)][mode]["step_mib"] for x in xs]
            exponent = fitted_exponent(dict(zip(map(float, xs), ys, strict=True)))
            axis.plot(xs, ys, "o-", label=f"{mode}, slope {exponent:.2f}")
        axis.set(xlabel=label, ylabel="peak of a training step, MiB")
        axis.set_title(title, fontsize=10)
        _logarithmic(axis, xs)
        axis.legend(fontsize=8)
    figure.suptitle("Memory above weights, gradients and optimizer", fontsize=11)
    return _save(figure, folder, "memory.png")


def _scaling(result: dict[str, Any], folder: Path, others: float | None) -> str:
    from matplotlib import pyplot as plt

    names = [name for name in SWEEPS if f"train, {name}" in result]
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.4), layout="constrained")
    for axis, name in zip(axes.flat, names, strict=False):
        for colour, task in enumerate(("train", "log_prob")):
            sweep = result[f"{task}, {name}"]
            xs = sorted(int(x) for x in sweep["relative"])
            ys = [sweep["relative"][str(x)] for x in xs]
            axis.plot(xs, ys, "o", color=f"C{colour}", label=f"{task}, slope {sweep['exponent']:.2f}")
            axis.plot(xs, _power_law(xs, ys, sweep["exponent"]), "--", color=f"C{colour}", linewidth=1)
        axis.set(xlabel=SWEEPS[name], ylabel="images per second, relative")
        _logarithmic(axis, xs)
        axis.legend(fontsize=8)
        if name == "threads" and others:
            axis.set_title(f"while others held {others:.2f} cores", fontsize=9)
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    figure.suptitle(
        "Throughput relative to each sweep's first point; dashed: the fitted power law", fontsize=11
    )
    return _save(figure, folder, "scaling.png")


def _power_law(xs: Sequence[int], ys: Sequence[float], exponent: float) -> list[float]:
    """The least-squares line in logarithms: it goes through the means."""
    mean_x = sum(math.log(x) for x in xs) / len(xs)
    mean_y = sum(math.log(y) for y in ys) / len(ys)
    return [math.exp(mean_y + exponent * (math.log(x) - mean_x)) for x in xs]


def _logarithmic(axis: Any, xs: Sequence[int]) -> None:
    """Both axes logarithmic, with plain numbers: each x that was measured, and y at 1, 2 and 5 of every decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set(xscale="log", yscale="log")
    axis.set_xticks(xs, [str(x) for x in xs])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.grid(alpha=0.3)
    # Space above and below, so that ticks are there even where all values are alike, and the legend finds room.
    low, high = axis.get_ylim()
    axis.set_ylim(low / 1.3, high * 1.6)


def _bars(rows: Mapping[str, Any], folder: Path, name: str) -> str:
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    subjects = [s for s in COLOURS if any(s in row["ratios"] for row in rows.values())]
    bars = sum(subject in row["ratios"] for row in rows.values() for subject in subjects)
    figure, axis = plt.subplots(figsize=(9, 0.19 * bars + 0.16 * len(rows) + 1), layout="constrained")
    y, ticks = 0.0, []
    for row in rows.values():
        present = [s for s in subjects if s in row["ratios"]]
        ticks.append(y + (len(present) - 1) / 2)
        for subject in present:
            ratio = row["ratios"][subject]
            axis.barh(y, ratio, 0.9, color=COLOURS[subject])
            axis.text(ratio, y, f" {ratio:.2f}", va="center", fontsize=7)
            y += 1
        y += 0.8
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks(ticks, list(rows), fontsize=8)
    axis.set_ylim(y - 0.8, -0.8)
    axis.set(xlabel="time relative to the floor, the coupling networks alone (line at 1); shorter is faster")
    axis.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=COLOURS[subject]) for subject in subjects]
    figure.legend(handles, subjects, loc="outside upper center", ncols=min(len(subjects), 4), fontsize=9)
    return _save(figure, folder, name)


def _save(figure: Any, folder: Path, name: str) -> str:
    from matplotlib import pyplot as plt

    figure.savefig(folder / name, dpi=110)
    plt.close(figure)
    return name
