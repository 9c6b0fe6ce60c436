"""Training runs under a directory, side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from flowzoo.errors import FlowzooError
from flowzoo.training.export import run_summary
from flowzoo.training.run_dir import RunDir


def list_runs(directory: str | Path) -> list[dict[str, Any]]:
    """Summaries of the runs in a directory (itself, its children and grandchildren), best first.

    Steps are those of the run itself; hours and images count the runs that it started from as well. Runs without a
    validation come last; a damaged one is listed with its fault as its state.
    """
    root = Path(directory)
    paths = {p.parent for pattern in ("run.json", "*/run.json", "*/*/run.json") for p in root.glob(pattern)}
    return sorted((_summary(path, root) for path in paths), key=_rank)


def _summary(path: Path, root: Path) -> dict[str, Any]:
    name = str(path.relative_to(root)) if path != root else path.name
    try:
        summary, header = run_summary(path), RunDir(path).header()
        # The summary counts the runs before this one too; a step of this one is one of its own total.
        earlier = int((header.get("before") or {}).get("step", 0))
        best = summary["best_step"]
        return {
            "run": name,
            "name": (summary["recipe"] or {}).get("name"),
            "best_bpd": summary["best_bpd"],
            "best_step": None if best is None else best - earlier,
            "step": summary["step"] - earlier,
            "steps": summary["steps"],
            "steps_before": earlier,
            "images": summary["images"],
            "state": summary["state"],
            "hours": summary["hours"],
            "parameters": header.get("parameters"),
        }
    except FlowzooError as error:
        keys = ("name", "best_bpd", "best_step", "step", "steps", "steps_before", "images", "parameters")
        return {"run": name, **dict.fromkeys(keys), "hours": 0.0, "state": str(error)}


def _rank(run: dict[str, Any]) -> tuple[float, str]:
    best = run["best_bpd"]
    return (math.inf if best is None else float(best), run["run"])
