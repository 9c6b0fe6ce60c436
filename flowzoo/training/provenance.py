"""How weights came to be, stage by stage: what was done, not what a preset would do today.

A run that starts from another (``--init-from``) keeps that run's stages in ``stages.json``; its own is in ``run.json``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowzoo.atomic import sha256_file, write_text
from flowzoo.data.portable import portable_id
from flowzoo.errors import CheckpointError
from flowzoo.manifest.read import load_manifests
from flowzoo.registry.files import check_characters
from flowzoo.training.recipe import read_recipe
from flowzoo.training.run_dir import COUNTED, RunDir
from flowzoo.training.toml_text import toml_lines

__all__ = ["Origin", "commands", "origin_of", "recipe_files", "run_stages", "write_origin"]

STAGES = "stages.json"


@dataclass(frozen=True)
class Origin:
    """Where a run's first weights come from.

    Attributes:
        stages: The stages of their training, oldest first, as :func:`run_stages` has them.
        cost: Steps, images and seconds of these together.
        history: Training windows and validations, if they come from a run.
    """

    stages: list[dict[str, Any]]
    cost: dict[str, float]
    history: list[dict[str, Any]] = field(default_factory=list)


def origin_of(source: Path) -> Origin:
    """What is known of the weights of a run, or of a weights file.

    A file is looked for in the manifests and, with the recipes, beside itself. Manifests hold the cost of all stages
    together; it stands in the last of them.

    Raises:
        CheckpointError: ``source`` is a directory without a run.
    """
    if source.is_dir():
        run = RunDir(source)
        return Origin(run_stages(run), run.cost(), run.history())
    digest = sha256_file(source)
    weights = {"file": source.name, "sha256": digest}
    listed = (entry for entry in load_manifests().entries if entry.weights and entry.weights.sha256 == digest)
    entry = next(listed, None)
    if entry is None or entry.training is None:
        return Origin([{"weights": weights}], dict.fromkeys(COUNTED, 0))
    known, found = entry.training, [source.parent / name for name in entry.training.recipe.split(", ")]
    stages: list[dict[str, Any]] = [{"weights": weights | {"model": entry.key}}]
    if all(path.suffix == ".toml" and path.is_file() for path in found):
        recipes = {_number(path): _stage_of(path, known.command) for path in found}
        # Of a stage without a recipe only the place among the others is known.
        stages = [recipes.get(number, {}) for number in range(1, max(recipes) + 1)]
    stages[-1] |= {
        "steps": known.steps,
        "images": known.images or 0,
        "hours": known.hours,
        "versions": dict(known.versions),
        "environment": {},
    }
    cost = {"step": known.steps, "images": known.images or 0, "seconds": known.hours * 3600}
    return Origin(stages, cost)


def write_origin(run: RunDir, origin: Origin) -> None:
    """Writes into a new run the stages that its first weights come from.

    Raises:
        CheckpointError: The disk refuses.
    """
    write_text(run.path / STAGES, json.dumps(origin.stages, indent=2) + "\n")


def run_stages(run: RunDir) -> list[dict[str, Any]]:
    """The stages of the training that led to a run's weights, oldest first.

    A stage has the resolved ``recipe`` (every field of the model's config, names of one's own images without their
    directories), ``steps``, ``images``, ``hours``, ``versions``, ``environment``, the training images'
    ``preprocessing``, and ``used``: optimizer, schedules, augmentations and objective with the distributions that they
    are of. One that was broken off has ``stop_after``, the step of its best weights, which are what it led to. One of
    which only the weights are known has ``weights`` with file name, SHA-256 and, if a manifest lists them, ``model``;
    and no recipe.

    Raises:
        CheckpointError: The run is damaged.
    """
    header, rows = run.header(), run.rows()
    recipe = _resolved(header)
    done = {key: max((row.get(key, 0) for row in rows), default=0) for key in COUNTED}
    mine = {
        "recipe": recipe,
        "steps": done["step"],
        "images": done["images"],
        "hours": round(done["seconds"] / 3600, 4),
        "versions": header.get("versions") or {},
        "environment": header.get("environment") or {},
    }
    if broken_off := _broken_off(header, rows, done["step"]):
        mine["stop_after"] = broken_off
    if header.get("used"):
        mine["used"] = header["used"]
    seen = (header.get("data") or {}).get("training")
    if isinstance(seen, dict) and seen.get("preprocessing"):
        mine["preprocessing"] = seen["preprocessing"]
    if header.get("extended"):
        mine["extended"] = header["extended"]
    return [*_earlier(run, header), mine]


def _broken_off(header: dict[str, Any], rows: list[dict[str, Any]], done: int) -> int | None:
    """The step of the best weights of a run that neither its length nor its patience ended; None for any other."""
    total = header.get("total_steps")
    patient = bool(rows) and rows[-1].get("state") == "stopped early"
    if not isinstance(total, int) or done >= total or patient:
        return None
    return max((row["step"] for row in rows if row.get("kind") == "valid" and row.get("best")), default=None)


def _resolved(header: dict[str, Any]) -> dict[str, Any] | None:
    """The recipe of a header with the whole config in it, so that it outlives a change of the preset."""
    recipe = header.get("recipe")
    if not isinstance(recipe, dict):
        return None
    found = recipe | {"model": header.get("config") or recipe.get("model") or {}}
    data = found.get("data")
    if isinstance(data, dict) and isinstance(data.get("dataset"), str):
        found["data"] = data | {"dataset": portable_id(data["dataset"])}
    return found


def _earlier(run: RunDir, header: dict[str, Any]) -> list[dict[str, Any]]:
    path = run.path / STAGES
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
            found = json.loads(text)
            check_characters(text, found)
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}); restore it from the earlier run."
            ) from error
        if isinstance(found, list) and all(isinstance(stage, dict) for stage in found):
            return found
        raise CheckpointError(f"{path} is not a list of stages; restore it from the earlier run.")
    before = header.get("before")
    # Runs of an older flowzoo kept the cost of earlier stages and not how they were trained.
    return [{"steps": before.get("step", 0), "images": before.get("images", 0)}] if before else []


def recipe_files(stages: list[dict[str, Any]], stem: str = "") -> dict[str, str]:
    """The recipes of the stages as TOML, by file name: ``STEM.recipe.toml``, numbered if there are several."""
    return {
        _filename(stem, number, len(stages)): "\n".join(toml_lines(stage["recipe"])) + "\n"
        for number, stage in enumerate(stages, start=1)
        if stage.get("recipe")
    }


def _filename(stem: str, number: int, count: int) -> str:
    return f"{stem}{'.' if stem else ''}recipe{f'-{number}' if count > 1 else ''}.toml"


def _stage_of(path: Path, command: str) -> dict[str, Any]:
    """A stage by its recipe's file, and by the manifest's command whether it was broken off."""
    stage: dict[str, Any] = {"recipe": read_recipe(path).to_dict()}
    if found := re.search(rf"{re.escape(path.name)}[^&]* --stop-after (\d+)", command):
        stage["stop_after"] = int(found[1])
    return stage


def _number(path: Path) -> int:
    """Which stage a file of :func:`recipe_files` is of."""
    found = re.search(r"recipe-(\d+)\.toml$", path.name)
    return int(found[1]) if found else 1


def commands(stages: list[dict[str, Any]], stem: str = "") -> str:
    """The commands that repeat the stages with the files of :func:`recipe_files`, and what cannot be repeated."""
    found: list[str] = []
    for number, stage in enumerate(stages, start=1):
        run = "RUN" if number == len(stages) else f"RUN{number}"
        if stage.get("recipe"):
            # Options stand before --out, so that the directory is the command's last word.
            options = f" --init-from {found[-1].rpartition('--out ')[2]}" if found else ""
            if stage.get("stop_after"):
                options += f" --stop-after {stage['stop_after']}"
            found.append(f"flowzoo train {_filename(stem, number, len(stages))}{options} --out {run}")
        elif weights := stage.get("weights"):
            origin = weights.get("model") or "weights of unrecorded origin"
            found.append(f"# {origin}, sha256 {weights.get('sha256')} --out {run}")
        else:
            steps = f"{stage['steps']:,} steps" if stage.get("steps") else "a stage"
            found.append(f"# {steps} of an unrecorded recipe --out {run}")
    return " && ".join(found)
