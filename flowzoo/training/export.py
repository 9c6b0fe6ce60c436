"""From a run to weights that ``load`` reads: ``model.safetensors``, ``flowzoo.json`` and the recipes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flowzoo.atomic import TEMPORARY, write_text
from flowzoo.config import config_hash, config_to_dict
from flowzoo.data.portable import portable_id
from flowzoo.directories import replaced_directory
from flowzoo.errors import CheckpointError, InputError, ManifestError
from flowzoo.manifest.typed_json import read
from flowzoo.manifest.values import Name
from flowzoo.training.provenance import commands, recipe_files, run_stages
from flowzoo.training.run_dir import RunDir, figure_of
from flowzoo.weights.checkpoint import load_weights, read_metadata, read_tensors, save_weights
from flowzoo.weights.safetensors_header import read_header

if TYPE_CHECKING:
    import torch

    from flowzoo.flow import Flow

CARD, WEIGHTS = "flowzoo.json", "model.safetensors"


def weights_metadata(flow: Flow, name: str, dataset: str, **facts: Any) -> dict[str, Any]:
    """A weights file's account of itself: nothing that two equal trainings would write differently."""
    config = config_to_dict(flow.config) if flow.config is not None else {}
    architecture = flow.architecture or ""
    return {
        "schema": 1,
        "name": name,
        "architecture": architecture,
        "config": config,
        "config_hash": config_hash(architecture, config),
        "num_params": sum(p.numel() for p in flow.parameters()),
        "dataset": dataset,
        **facts,
    }


def run_weights(run: str | Path, which: Literal["best", "last"] = "best") -> Path:
    """The weights file of a run.

    Raises:
        CheckpointError: The run has not written it yet.
    """
    directory = RunDir(run)
    path = directory.best if which == "best" else directory.last
    if not path.is_file():
        directory.header()
        raise CheckpointError(
            f"{directory.path} has no {which} weights yet: the best are written at the first validation, "
            "the last at the end. Let flowzoo train go on."
        )
    return path


def load_run(run: str | Path, which: Literal["best", "last"] = "best") -> Flow:
    """Builds a run's flow with its averaged weights, in eval mode.

    Raises:
        CheckpointError: The run has no such weights yet.
        FlowzooError: The architecture cannot be built, or the file is damaged.
    """
    return built_from(run_weights(run, which)).eval()


def built_from(path: Path) -> Flow:
    """Builds the model that a weights file describes, with its weights.

    Raises:
        FlowzooError: The architecture cannot be built, or the file is damaged.
    """
    from flowzoo.config import parse_config
    from flowzoo.factory import build_flow
    from flowzoo.registry import config_class

    metadata = read_metadata(path)
    architecture = str(metadata.get("architecture", ""))
    config = parse_config(config_class(architecture), metadata.get("config", {}), str(path))
    flow = build_flow(architecture, config)
    load_weights(flow, path)
    return flow


def export_weights(
    run: str | Path,
    out: str | Path,
    *,
    which: Literal["best", "last"] = "best",
    dtype: torch.dtype | None = None,
    name: str | None = None,
) -> Path:
    """Writes a run's averaged weights as a directory that ``flowzoo.load("path:DIR")`` reads.

    Beside the weights lie ``flowzoo.json``, with the fingerprint of what was written, and the recipe of every stage.
    The directory changes as a whole: killed in between, it is as it was.

    Args:
        run: The run's directory.
        out: The directory to write: missing, empty, or an earlier export of this model.
        which: The weights of the best validation, or of the end.
        dtype: Stored type, such as ``torch.float16`` for half the size; None for float32.
        name: The model's name; None for the recipe's.

    Returns:
        The path of the weights file. Equal trainings give equal bytes.

    Raises:
        CheckpointError: The run has no such weights yet, or the disk refuses.
        InputError: The directory holds something else, or the name cannot be a model's.
        IntegrityError: A weight is not finite in ``dtype``.
    """
    source, target = run_weights(run, which), Path(out)
    metadata = read_metadata(source)
    name = check_name(name or str(metadata.get("name", "")))
    if target.resolve() == Path(run).resolve():
        raise InputError(f"{target} is the run itself; name another directory for the export.")
    with replaced_directory(
        target, lambda path: is_export(path, name), f"an earlier export of {name}"
    ) as new:
        write_export(run, new, source, metadata, which=which, dtype=dtype, name=name)
    return target / WEIGHTS


def check_name(name: str) -> str:
    """Returns a model's name that is one; anything else could leave the directories that are named after it.

    Raises:
        InputError: It is not of the form that a manifest takes.
    """
    try:
        return str(read(Name, name, "name"))
    except ManifestError as error:
        raise InputError(f"{name!r} cannot be a model's name: {error}") from error


def is_export(path: Path, name: str) -> bool:
    """Whether a directory holds an export of the model and nothing else."""
    allowed = {CARD, WEIGHTS}
    names = {file.name for file in path.iterdir() if not file.name.startswith(TEMPORARY)}
    if not all(found in allowed or re.fullmatch(r"recipe(-\d+)?\.toml", found) for found in names):
        return False
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(card, dict) and card.get("name") == name and "status" not in card


def write_export(
    run: str | Path,
    directory: Path,
    source: Path,
    metadata: Mapping[str, Any],
    *,
    name: str,
    which: Literal["best", "last"] = "best",
    dtype: torch.dtype | None = None,
) -> None:
    """Writes weights, ``flowzoo.json`` and recipes into a directory that nobody else looks at yet.

    Raises:
        CheckpointError: The run is damaged, or the disk refuses.
        IntegrityError: The weights file is damaged; or a weight is not finite in ``dtype``, or the fingerprint is not.
    """
    from flowzoo.weights.fingerprint import take_fingerprint

    weights, stages = directory / WEIGHTS, run_stages(RunDir(run))
    described = {**metadata, "name": name, "dataset": portable_id(str(metadata.get("dataset", "")))}
    digest, size = save_weights(read_tensors(source), weights, described, dtype=dtype)
    header = read_header(weights)
    card = described | {
        "weights": {
            "filename": WEIGHTS,
            "sha256": digest,
            "size": size,
            "dtype": stored_dtype({info.dtype for info in header.tensors.values()}),
        },
        "fingerprint": config_to_dict(take_fingerprint(built_from(weights).eval())),
        "training": run_summary(run)
        | {"recipe": stages[-1]["recipe"], "stages": stages, "which": which, "command": commands(stages)},
    }
    for file, text in recipe_files(stages).items():
        write_text(directory / file, text)
    write_text(directory / CARD, json.dumps(card, indent=2) + "\n")


def stored_dtype(codes: set[str]) -> str:
    """The floating type of a file from its tensors' codes, such as ``"float16"``."""
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    return "+".join(sorted(names[code] for code in codes & set(names))) or "none"


def run_summary(run: str | Path) -> dict[str, Any]:
    """Cost and result of a training, from its metrics: for cards and tables.

    Steps, images and hours count the runs that it started from as well.
    """
    directory = RunDir(run)
    rows = directory.rows()
    valid = [row for row in rows if row.get("kind") == "valid" and figure_of(row) is not None]
    last = rows[-1] if rows else {}
    best = min(valid, key=lambda row: figure_of(row) or 0.0, default=None)
    header, cost = directory.header(), directory.cost()
    earlier = int((header.get("before") or {}).get("step", 0))
    return {
        "step": cost["step"],
        "steps": header.get("total_steps"),
        "hours": round(cost["seconds"] / 3600, 4),
        "images": cost["images"],
        "best_bpd": best.get("bpd") if best else None,
        **({"best_nats_per_dim": best["nats_per_dim"]} if best and "nats_per_dim" in best else {}),
        "best_step": best["step"] + earlier if best else None,
        "state": last.get("state", "interrupted") if last.get("kind") == "end" else "running or interrupted",
        "recipe": header.get("recipe"),
        "environment": header.get("environment"),
        "versions": header.get("versions") or {},
    }
