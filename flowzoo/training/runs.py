"""Training runs under a directory, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowzoo.errors import CheckpointError, FlowzooError, InputError
from flowzoo.training.export import run_summary
from flowzoo.training.recipe import flatten
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
            **{key: summary[key] for key in ("best_nats_per_dim",) if key in summary},
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


def best_of(run: dict[str, Any]) -> float | None:
    """The best figure of a summary: bits, or of a density nats, per dimension."""
    found: float | None = run.get("best_nats_per_dim", run["best_bpd"])
    return found


def _rank(run: dict[str, Any]) -> tuple[float, str]:
    best = best_of(run)
    return (math.inf if best is None else float(best), run["run"])


def compare_runs(paths: Sequence[Path]) -> dict[str, Any]:
    """Training runs side by side: the fields of their recipes that differ, and their best figures.

    Args:
        paths: Directories of runs, or directories that hold some; each run counts once.

    Returns:
        ``runs``, their summaries in the order given, with ``path`` and ``unit``; and ``differences``, for each key in
        which the recipes, configs or the versions of what they use differ, the values, None where a run has no such
        key.

    Raises:
        CheckpointError: A run is damaged.
        InputError: A directory holds no run.
    """
    found = [_compared(path) for path in _runs_of(paths)]
    names = _short_names([run["path"] for run in found])
    fields = [run.pop("fields") for run in found]
    for run, name in zip(found, names, strict=True):
        run["run"] = name
    keys = list(dict.fromkeys(key for one in fields for key in one))
    tables = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    keys.sort(key=lambda key: tables.index(key.partition(".")[0]))  # the keys of a table side by side
    # A key without a value is as good as no key: neither says anything.
    differing = [key for key in keys if any(one.get(key) != fields[0].get(key) for one in fields)]
    return {"runs": found, "differences": {key: [one.get(key) for one in fields] for key in differing}}


def _runs_of(paths: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        if (path / "run.json").is_file():
            found[path] = None
        else:
            inside = [path / run["run"] for run in list_runs(path)]
            if not inside:
                raise InputError(
                    f"{path} holds no training run; give directories that flowzoo train --out wrote."
                )
            found |= dict.fromkeys(inside)
    return list(found)


def _compared(path: Path) -> dict[str, Any]:
    """A run's summary, and its fields: recipe with the whole config, versions, and what its names stand for."""
    header = RunDir(path).header()
    summary = _summary(path, path)
    if summary["parameters"] is None and summary["name"] is None:
        raise CheckpointError(summary["state"])
    recipe = dict(header.get("recipe") or {})
    recipe["model"] = header.get("config") or recipe.get("model") or {}
    fields = flatten(recipe)
    for role, data in (header.get("data") or {}).items():
        if isinstance(data, dict):
            fields[f"{role} data"] = str(data.get("sha256"))[:12]
    fields |= {f"version of {name}": version for name, version in (header.get("versions") or {}).items()}
    unit = "nats/dim" if "best_nats_per_dim" in summary else "bits/dim"
    return summary | {"path": str(path), "unit": unit, "fields": fields}


def _short_names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of paths by which they can be told apart."""
    parts = [Path(path).resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def plot_runs(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws the validations and, faintly, the training losses of runs into one PNG, over images seen.

    The loss of another objective than the likelihood has no unit in common with them and is left out.

    Args:
        found: ``runs`` of :func:`compare_runs`.
        path: The file.

    Raises:
        InputError: The figures of some are in bits, of others in nats.
        CheckpointError: A run is damaged, or the file cannot be written.
    """
    from flowzoo.analysis.curves import save_comparison

    units = {run["unit"] for run in found}
    if len(units) > 1:
        raise InputError(
            "Some runs are measured in bits/dim and some in nats/dim; plot those of a kind together."
        )
    rows = [(run["run"], RunDir(run["path"]).likelihoods()) for run in found]
    save_comparison(rows, path, unit="bits" if units == {"bits/dim"} else "nats")
