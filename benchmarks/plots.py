"""The benchmark's pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MODES = ("store", "checkpoint", "invertible")


def draw(results: dict[str, Any], folder: Path) -> list[str]:
    """Writes a PNG for every section that has one; returns their names."""
    import matplotlib as mpl

    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    if "memory" in results:
        drawn += [_memory(results["memory"], folder)]
    if "scaling" in results:
        drawn += [_scaling(results["scaling"], folder)]
    if "speed" in results:
        drawn += [_speed(results["speed"], folder)]
    return drawn


def _memory(result: dict[str, Any], folder: Path) -> str:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, key, label in zip(axes, ("by_depth", "by_size"), ("depth K", "image size"), strict=True):
        points = {int(x): result[key][x] for x in sorted(result[key], key=int)}
        for mode in MODES:
            axis.plot(list(points), [rows[mode]["step_mib"] for rows in points.values()], "o-", label=mode)
        axis.set(xlabel=label, ylabel="MiB above parameters and optimizer", xscale="log", yscale="log")
        axis.set_xticks(list(points), [str(x) for x in points])
        axis.minorticks_off()
        axis.legend()
    return _save(figure, folder, "memory.png")


def _scaling(result: dict[str, Any], folder: Path) -> str:
    from matplotlib import pyplot as plt

    names = sorted({key.partition(", ")[2] for key in result})
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3.2), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        for task in ("train", "log_prob"):
            sweep = result[f"{task}, {name}"]
            label = f"{task}: exponent {sweep['exponent']:.2f}"
            xs = sorted(int(x) for x in sweep["relative"])
            axis.plot(xs, [sweep["relative"][str(x)] for x in xs], "o-", label=label)
        axis.set(xlabel=name, ylabel="images per second, relative", xscale="log", yscale="log")
        axis.set_xticks(xs, [str(x) for x in xs])
        axis.minorticks_off()
        axis.legend(fontsize=7)
    return _save(figure, folder, "scaling.png")


def _speed(result: dict[str, Any], folder: Path) -> str:
    from matplotlib import pyplot as plt

    rows = {name: row["ratios"] for name, row in result["rows"].items() if name.startswith("Glow")}
    figure, axis = plt.subplots(figsize=(9, 0.7 * len(rows) + 1), layout="constrained")
    subjects = sorted({subject for ratios in rows.values() for subject in ratios} - {"floor"})
    for i, subject in enumerate(subjects):
        heights = [ratios.get(subject, 0.0) for ratios in rows.values()]
        axis.barh(
            [y + 0.8 * i / len(subjects) for y in range(len(rows))],
            heights,
            0.8 / len(subjects),
            label=subject,
        )
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks([y + 0.4 for y in range(len(rows))], list(rows), fontsize=7)
    axis.set(xlabel="time relative to the floor")
    axis.invert_yaxis()
    axis.legend(fontsize=7)
    return _save(figure, folder, "speed.png")


def _save(figure: Any, folder: Path, name: str) -> str:
    from matplotlib import pyplot as plt

    figure.savefig(folder / name, dpi=110)
    plt.close(figure)
    return name
