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

    Runs without a validation come last; a damaged one is listed with what is wrong as its state.
    """
    root = Path(directory)
    paths = {p.parent for pattern in ("run.json", "*/run.json", "*/*/run.json") for p in root.glob(pattern)}
    return sorted((_summary(path, root) for path in paths), key=_rank)


def _summary(path: Path, root: Path) -> dict[str, Any]:
    name = str(path.relative_to(root)) if path != root else path.name
    keys = ("best_bpd", "best_step", "step", "steps", "images", "state")
    try:
        summary = run_summary(path)
        recipe = summary["recipe"] or {}
        return {
            "run": name,
            "name": recipe.get("name"),
            **{key: summary[key] for key in keys},
            "hours": summary["hours"],
            "parameters": RunDir(path).header().get("parameters"),
        }
    except FlowzooError as error:
        broken: dict[str, Any] = {"run": name, "name": None, **dict.fromkeys(keys), "hours": 0.0}
        return broken | {"parameters": None, "state": str(error)}


def _rank(run: dict[str, Any]) -> tuple[float, str]:
    best = run["best_bpd"]
    return (math.inf if best is None else float(best), run["run"])
