"""``train``: from a name or a recipe to a run directory."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flowzoo.data import get_dataset
from flowzoo.distributed import World, share, world
from flowzoo.errors import ConfigError, InputError
from flowzoo.evaluation.noise import derive_seed
from flowzoo.evaluation.progress import write_line
from flowzoo.training.callbacks import Callbacks
from flowzoo.training.export import run_weights
from flowzoo.training.fitting import check_fit
from flowzoo.training.interrupt import stop_requests
from flowzoo.training.lock import only_training
from flowzoo.training.loggers import make_loggers
from flowzoo.training.loop import Loop, Outcome
from flowzoo.training.objectives import with_objective
from flowzoo.training.opening import open_run
from flowzoo.training.provenance import Origin, origin_of, write_origin
from flowzoo.training.recipe import Recipe, parse_recipe, read_recipe, with_defaults
from flowzoo.training.run_dir import RunDir
from flowzoo.training.state import list_checkpoints
from flowzoo.training.used import used_by
from flowzoo.training.warm_start import start_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flowzoo.data.images import ImageSet
    from flowzoo.flow import Flow
    from flowzoo.training.objectives import Objective


def find_recipe(name: str, sets: Iterable[str] = ()) -> Recipe:
    """The recipe of a preset (``"glow-mnist"``) or of a TOML file.

    A preset's recipe trains that preset on its own data set, also where several presets share one file.

    Args:
        name: A preset's name or a path.
        sets: ``key=value`` overrides.

    Raises:
        UnknownArchitecture: It is neither.
        ConfigError: The recipe is invalid, or the preset has none.
    """
    from flowzoo.factory import resolve

    if name.endswith(".toml"):
        recipe = read_recipe(name, sets)
        _, preset, _ = resolve(recipe.name, recipe.model)
        return with_defaults(recipe, dataset=preset.dataset if preset else None)
    _, preset, _ = resolve(name, {})
    if preset is None or preset.recipe is None:
        raise ConfigError(f"{name} brings no recipe; write one in TOML (docs/training.md) and give its path.")
    package, _, inside = preset.recipe.partition(":")
    text = importlib.resources.files(package).joinpath(inside).read_text(encoding="utf-8")
    tree = tomllib.loads(text) | {
        "name": name
    }  # presets may share a recipe: model and data are the preset's own
    if preset.dataset is not None and isinstance(tree.get("data", {}), dict):
        tree["data"] = {**tree.get("data", {}), "dataset": preset.dataset}
    recipe = parse_recipe(tree, f"recipe {preset.recipe}", sets)
    return with_defaults(recipe, dataset=preset.dataset)


def longer_recipe(out: str | os.PathLike[str], steps: int) -> Recipe:
    """The recipe of a run that has ended, for more updates.

    Args:
        out: The run's directory.
        steps: How many more.

    Raises:
        InputError: ``steps`` is not positive, or the run has updates to go: asked twice, it would grow twice.
        CheckpointError: There is no run.
    """
    run = RunDir(Path(out))
    header = run.header()
    total = int(header.get("total_steps") or 0)
    newest = next(iter(list_checkpoints(run.checkpoints)), None)
    done = int(newest.name) if newest else 0
    if steps < 1:
        raise InputError(f"extend is {steps}; expected a positive number of updates.")
    if done < total:
        raise InputError(
            f"{out} has done {done} of {total} updates, so that there is nothing to extend yet: go on with "
            f"flowzoo train --out {out}, or set another length with --set train.steps=N."
        )
    return parse_recipe(run.recipe().to_dict(), str(out), [f"train.steps={total + steps}"])


def build_model(recipe: Recipe) -> Flow:
    """Builds a recipe's untrained flow on the CPU; the recipe's seed decides its weights.

    Raises:
        FlowzooError: The architecture is unknown, or its config invalid.
    """
    from flowzoo.factory import build_flow, resolve

    architecture, _, config = resolve(recipe.name, recipe.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.train.seed, "weights"))
        return build_flow(architecture.name, config)


def load_data(recipe: Recipe, root: str | os.PathLike[str] | None) -> tuple[ImageSet, ImageSet]:
    """The images for gradients and the held-out ones.

    Raises:
        DataUnavailable: They are not there; the message says how to get them.
    """
    dataset, settings = get_dataset(recipe.data.dataset), recipe.data
    train_set = dataset.load(settings.split, root)
    valid_set = dataset.load(settings.valid_split, root)
    if settings.limit is not None:
        train_set = train_set.take(settings.limit)
    if recipe.train.validate_images is not None:
        valid_set = valid_set.take(recipe.train.validate_images)
    return train_set, valid_set


def train(
    name: str | Recipe,
    out: str | os.PathLike[str],
    *,
    sets: Iterable[str] = (),
    data_root: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    max_seconds: float | None = None,
    stop_after: int | None = None,
    init_from: str | os.PathLike[str] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    callbacks: Sequence[Any] = (),
    loggers: Iterable[str] = (),
    objective: Objective | None = None,
) -> Outcome:
    """Trains a model, or goes on with a run, bit for bit where it was interrupted.

    Args:
        name: A preset such as ``"glow-mnist"``, a recipe file, or a :class:`Recipe`.
        out: The run's directory. If a run is there, it goes on; its recipe must be the same, but may have more
            steps.
        sets: Overrides such as ``"train.steps=2000"`` or ``"model.hidden_channels=128"``.
        data_root: Where data sets are; None for ``$FLOWZOO_DATA`` and the default.
        device: Such as ``"cuda"``; None takes a GPU if there is one.
        max_seconds: Stop with a checkpoint and a validation after this many seconds.
        stop_after: Stop so when the run has had this many updates; its schedule stays that of the recipe's length.
        init_from: Another run, or a weights file, to start from; a new schedule, a new optimizer. It may be of
            a narrower model; see :mod:`flowzoo.training.warm_start`.
        progress: Whether progress is shown: a bar on a terminal, a line every half minute elsewhere.
        tensorboard: Whether to write TensorBoard events too.
        callbacks: Objects whose methods ``on_start``, ``on_step``, ``on_validation``, ``on_row`` and ``on_end`` are
            called, those that they have; see :class:`flowzoo.training.callbacks.Callback`.
        loggers: Names of loggers: ``"tensorboard"``, or entry points of ``flowzoo.loggers``.
        objective: A function that gives the loss of each item, in place of the likelihood; see
            :mod:`flowzoo.training.objectives`.

    Returns:
        How it ended.

    Raises:
        FlowzooError: Anything that keeps it from training; see :mod:`flowzoo.errors`.
        CallbackError: A callback failed, after a checkpoint.
        KeyboardInterrupt: After Ctrl-C, SIGTERM or SIGHUP, once the checkpoint is written.
    """
    recipe = name if isinstance(name, Recipe) else find_recipe(name, sets)
    used_by(with_objective(recipe, objective), objective)  # before anything that takes time
    with world(device) as where:
        images = load_data(recipe, data_root)
        flow = build_model(recipe)
        before = None
        if init_from is not None and not list_checkpoints(RunDir(Path(out)).checkpoints):
            source = Path(init_from)
            start_from(flow, run_weights(source) if source.is_dir() else source, images[1])
            before = origin_of(source)
            write_origin(RunDir(Path(out)), before)
        return train_flow(
            flow,
            recipe,
            out,
            images,
            where,
            max_seconds=max_seconds,
            stop_after=stop_after,
            progress=progress,
            tensorboard=tensorboard,
            before=before,
            callbacks=callbacks,
            loggers=loggers,
            objective=objective,
        )


def train_flow(
    flow: Flow,
    recipe: Recipe,
    out: str | os.PathLike[str],
    images: tuple[ImageSet, ImageSet],
    where: World,
    *,
    max_seconds: float | None = None,
    stop_after: int | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    say: Callable[[str], None] | None = None,
    resident: bool | None = None,
    before: Origin | None = None,
    callbacks: Sequence[Any] = (),
    loggers: Iterable[str] = (),
    objective: Objective | None = None,
) -> Outcome:
    """Trains a flow that was built elsewhere; see :func:`train`.

    ``before`` is where its weights come from.

    Raises:
        InputError: Model and images do not fit.
        KeyboardInterrupt: After Ctrl-C, once the checkpoint is written.
    """
    recipe = with_objective(recipe, objective)
    used = used_by(recipe, objective)
    check_fit(flow, recipe, images)
    if max_seconds is not None and not max_seconds >= 0:
        raise InputError(f"max_seconds is {max_seconds}; expected a number of seconds, 0 or more.")
    _check_stop(RunDir(Path(out)), stop_after)
    run, tell = RunDir(Path(out)), say or write_line
    flow.to(where.device)
    names = [*loggers, *(["tensorboard"] if tensorboard else [])]
    hooks = Callbacks([*callbacks, *make_loggers(names)] if where.main else ())
    loop = Loop(
        flow, recipe, run, images, where, say=tell, show_bar=progress, resident=resident, callbacks=hooks,
        objective=objective,
    )  # fmt: skip
    with (
        only_training(run.path) if where.main else contextlib.nullcontext(),
        _deterministic(recipe.train.deterministic),
        # Of this process's own device: all of several would be touched, and torch warns.
        torch.random.fork_rng([where.device] if where.device.type == "cuda" else []),
        stop_requests() as request,
    ):
        opened = None
        if where.main:
            opened = open_run(run, recipe, flow, images, where, before=before, say=tell, used=used)
        loop.prepare(share(opened, where))
        outcome = loop.execute(request, max_seconds, stop_after)
    # Of several processes only one may have been asked; all of them stop.
    if request.signal is not None or outcome.state == "interrupted":
        raise KeyboardInterrupt
    return outcome


def _check_stop(run: RunDir, stop_after: int | None) -> None:
    """Checks that a number of updates to stop after lies ahead.

    Raises:
        InputError: It is below 1, or the run has had more.
    """
    if stop_after is None:
        return
    had = max((int(path.name) for path in list_checkpoints(run.checkpoints)), default=0)
    if stop_after < max(1, had):
        raise InputError(
            f"stop_after is {stop_after}; expected a number of updates from {max(1, had)} on: {run.path} has had {had}."
        )


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Deterministic kernels where there are any; the setting before is restored."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # The mode would also fill every new tensor with NaN to expose reads of it, which only costs time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
