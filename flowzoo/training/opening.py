"""Opening a run's directory: a new header, or the checks that going on continues what is there."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flowzoo.config import config_to_dict
from flowzoo.data.own import PREFIXES
from flowzoo.data.portable import is_split_by_content
from flowzoo.devices import has_bfloat16_units
from flowzoo.errors import ConfigError, InputError
from flowzoo.evaluation.environment import environment, versions
from flowzoo.training.run_dir import SCHEMA
from flowzoo.training.state import list_checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from flowzoo.data.images import ImageSet
    from flowzoo.distributed import World
    from flowzoo.flow import Flow
    from flowzoo.training.provenance import Origin
    from flowzoo.training.recipe import Recipe
    from flowzoo.training.run_dir import RunDir

__all__ = ["Opened", "decide_precision", "open_run"]

OPERATIONAL = frozenset(
    f"train.{key}"
    for key in (
        "log_every",
        "checkpoint_every",
        "checkpoint_minutes",
        "keep",
        "samples",
        "temperature",
        "on_nan",
        "max_bad_steps",
    )
) | {"note"}
"""Recipe keys that may change when a run goes on: they do not move the weights of a healthy run."""

LENGTH = frozenset({"train.steps", "train.epochs"})
"""Recipe keys that may grow when a run goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A run that may be trained.

    Attributes:
        recipe: The recipe with its precision decided.
        stages: ``(step, steps)`` for each time that the run was extended: up to ``step`` its schedule was
            that of ``steps`` updates.
    """

    recipe: Recipe
    stages: tuple[tuple[int, int], ...] = ()


def decide_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with ``precision = "auto"`` decided for a device: bfloat16 where it has units for it."""
    if recipe.train.precision != "auto":
        return recipe
    return _with_precision(recipe, "bfloat16" if has_bfloat16_units(device) else "float32")


def _with_precision(recipe: Recipe, precision: Literal["float32", "bfloat16"]) -> Recipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, precision=precision))


def _tell_of_emulation(recipe: Recipe, device: torch.device, say: Callable[[str], None]) -> None:
    if recipe.train.precision == "bfloat16" and device.type == "cpu" and not has_bfloat16_units(device):
        say(
            "The networks run in bfloat16, for which this processor has no units: a step may take ten times as long "
            "as in float32. A new run with --set train.precision=auto avoids that."
        )


def open_run(
    run: RunDir,
    recipe: Recipe,
    flow: Flow,
    images: tuple[ImageSet, ImageSet],
    where: World,
    *,
    before: Origin | None,
    say: Callable[[str], None],
    used: Sequence[dict[str, str]] = (),
) -> Opened:
    """Starts a run's directory, or checks that what is there is this run and mends what a kill left.

    Args:
        run: The directory, held by this process.
        recipe: The recipe asked for.
        flow: The model that it builds.
        images: Images that gradients see, and held-out ones.
        where: This process.
        before: Where the weights come from, if not from nothing.
        say: Told what a person should know.
        used: What the recipe names, as :func:`flowzoo.training.used.used_by` has it.

    Raises:
        ConfigError: The run has another recipe or model; the message lists the keys.
        InputError: The run was started with other images; the message says which.
        CheckpointError: The run is damaged, or the disk refuses.
    """
    run.clean()
    surroundings = _surroundings(flow, where, used)
    total = recipe.train.total_steps(len(images[0]))
    if run.exists:
        if run.header().get("before") and before is None and not list_checkpoints(run.checkpoints):
            raise ConfigError(
                f"{run.path} starts from other weights and was ended before its first checkpoint; "
                "give --init-from again."
            )
        return _reopen(run, recipe, flow, images, where, total, surroundings, say)
    decided = decide_precision(recipe, where.device)
    if recipe is not decided:
        say(f"precision = auto: the networks run in {decided.train.precision} on this {where.device.type}.")
    _tell_of_emulation(decided, where.device, say)
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "recipe": decided.to_dict(),
        **_model(flow),
        "parameters": sum(p.numel() for p in flow.parameters()),
        "total_steps": total,
        "data": _describe_images(images),
        **surroundings,
        "used": list(used),
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "before": before.cost if before is not None else None,
    }
    if before is not None:
        run.write_before(before.history)
    run.write_header(header)
    run.repair()
    return Opened(recipe=decided)


def _reopen(
    run: RunDir,
    recipe: Recipe,
    flow: Flow,
    images: tuple[ImageSet, ImageSet],
    where: World,
    total: int,
    surroundings: dict[str, Any],
    say: Callable[[str], None],
) -> Opened:
    header, recorded = run.header(), run.recipe()
    if recipe.train.precision == "auto" and recorded.train.precision != "auto":
        recipe = _with_precision(recipe, recorded.train.precision)
    recipe = decide_precision(recipe, where.device)
    _tell_of_emulation(recipe, where.device, say)
    longer = total > int(header.get("total_steps") or total)
    _check_recipe(run, recorded, recipe, longer=longer)
    _check_model(run, header, flow)
    _check_images(run, header, images, labels=recipe.data.labels)
    if dropped := run.repair():
        say(f"{run.metrics}: {dropped} damaged line(s) are left out.")
    if changed := _changes(header, surroundings):
        say(
            f"This run goes on in other surroundings: {'; '.join(changed)}. It will not end with the same bytes as "
            "one that never changed them."
        )
        run.append({"kind": "resumed", "changed": changed})
    if longer:
        header = _extend(run, header, recipe, total, say)
    stages = tuple((int(stage["step"]), int(stage["steps"])) for stage in header.get("extended") or [])
    return Opened(recipe=recipe, stages=stages)


def _extend(
    run: RunDir, header: dict[str, Any], recipe: Recipe, total: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Writes down that the run becomes longer, and from which step on; returns the header."""
    newest = next(iter(list_checkpoints(run.checkpoints)), None)
    step, steps = int(newest.name) if newest else 0, int(header["total_steps"])
    extended = [*(header.get("extended") or []), {"step": step, "steps": steps}]
    header = header | {"recipe": recipe.to_dict(), "total_steps": total, "extended": extended}
    run.append({"kind": "extended", "step": step, "from": steps, "to": total})
    run.write_header(header)
    say(
        f"The run is extended from {steps} to {total} steps: from step {step} on, its learning rate is that of a "
        f"training of {total}."
    )
    return header


def _check_recipe(run: RunDir, recorded: Recipe, recipe: Recipe, *, longer: bool) -> None:
    allowed = OPERATIONAL | LENGTH if longer else OPERATIONAL
    changed = [key for key in recorded.differences(recipe) if key not in allowed]
    if changed:
        shorter = " A run's steps can only grow." if LENGTH & set(changed) else ""
        raise ConfigError(
            f"{run.path} holds a run with another recipe; they differ in {', '.join(changed)}.{shorter} "
            f"Resume it with its own recipe (flowzoo train --out {run.path}), or choose another --out (and "
            "--init-from this one)."
        )


def _check_model(run: RunDir, header: dict[str, Any], flow: Flow) -> None:
    built = _model(flow)
    # As JSON has it: a header that another tool wrote may lack either.
    changed = [key for key, value in built.items() if header.get(key, value) != value]
    if changed:
        raise ConfigError(
            f"{run.path} holds a run of another model: its run.json has {changed[0]} {header[changed[0]]!r}, and its "
            f"recipe builds {built[changed[0]]!r} here. Install the plugin's version that it was started with "
            f"({_list_of(header.get('versions') or {})}), or start again with another --out."
        )


_OTHER_SPLITTING = (
    "was started by an older flowzoo, which split one's own images by their position; they are now split by their "
    "content, so its held-out images are among the training images here. Start a new run with another --out, or go on "
    "with the flowzoo that it was started with."
)


def _check_images(
    run: RunDir, header: dict[str, Any], images: tuple[ImageSet, ImageSet], *, labels: bool
) -> None:
    keys = ("number", "shape", "sha256", *(("labels",) if labels else ()))
    recorded, found = header.get("data") or {}, _describe_images(images)
    for role, now in found.items():
        then = recorded.get(role)
        if not isinstance(then, dict):  # a run of a flowzoo that did not write them down
            if is_split_by_content(now["id"]):
                raise InputError(f"{run.path} {_OTHER_SPLITTING}")
            continue
        differ = [key for key in keys if then.get(key) != now[key]]
        if differ and is_split_by_content(now["id"]) and then.get("preprocessing") != now["preprocessing"]:
            raise InputError(f"{run.path} {_OTHER_SPLITTING}")
        if differ:
            what = "; ".join(f"{key} was {then.get(key)}, is {now[key]}" for key in differ)
            places = f"It was started with those of {then.get('path') or then.get('id')}"
            raise InputError(
                f"{run.path} was started with other {role} images: {what}. {places}, here are those of "
                f"{now['path'] or now['id']}. Bring those back, or start a new run with another --out."
            )


def _describe_images(images: tuple[ImageSet, ImageSet]) -> dict[str, dict[str, Any]]:
    """Number, digest and place of the images of both splits."""
    return {
        role: {
            "id": found.id,
            "split": found.split,
            "preprocessing": found.preprocessing,
            "number": len(found),
            "shape": list(found.data_shape),
            "sha256": found.digest,
            "labels": _labels_digest(found),
            "path": _own_path(found.id),
        }
        for role, found in zip(("training", "held-out"), images, strict=True)
    }


def _labels_digest(found: ImageSet) -> str | None:
    """SHA-256 of the labels as little-endian int64; None where there are none."""
    if found.labels is None:
        return None
    return hashlib.sha256(found.labels.numpy().astype("<i8").tobytes()).hexdigest()


def _own_path(dataset: str) -> str | None:
    """The absolute path of one's own images; None for a data set with a name."""
    kind, colon, rest = dataset.partition(":")
    if f"{kind}{colon}" not in PREFIXES:
        return None
    return str(Path(rest.partition("?")[0]).expanduser().absolute())


def _model(flow: Flow) -> dict[str, Any]:
    config = config_to_dict(flow.config) if flow.config is not None else {}
    return {"architecture": flow.architecture, "config": config}


def _surroundings(flow: Flow, where: World, used: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Everything besides recipe and images that can move a bit."""
    return {
        "versions": versions(flow.architecture) | {one["distribution"]: one["version"] for one in used},
        "environment": environment(where.device) | {"processes": where.size},
        "engine": _engine_is_enabled(),
    }


def _engine_is_enabled() -> bool | None:
    """Whether fused operations compute the model; None where there is no engine to ask."""
    try:
        from flowzoo.engine import is_enabled
    except ImportError:
        return None
    return bool(is_enabled())


def _changes(header: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Differences between the surroundings that a run was started in and those here, in words."""
    engine = {"engine": header.get("engine")}, {"engine": now["engine"]}
    pairs = [(header.get(part) or {}, now[part]) for part in ("versions", "environment")] + [engine]
    irrelevant = {"cpus", "system"}
    return [
        f"{key} was {then[key]}, is {here[key]}"
        for then, here in pairs
        for key in here
        if key not in irrelevant and then.get(key) is not None and then[key] != here[key]
    ]


def _list_of(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items()) or "unknown"
