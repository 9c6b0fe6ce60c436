"""Trains all models for MNIST for the same time: ``python -m tools.same_time [--seconds N] [--only NAME]``.

Each architecture's model begins untrained and gets N seconds of processor time on one thread, initialisation from data
included, with its own recipe: its optimizer, batch size, objective, clipping, average and augmentation. Only the
schedule is the same for all, since the recipes' are made for hours: the rate rises over the first twentieth of the time
and falls to zero as half a cosine. Then the average is measured on a thousand images of the test split, evenly spread,
one noise sample each, for at most as long again.

Figures go into ``docs/which-flow.json``, architecture by architecture, so that a run that is cut short goes on where it
stopped; :mod:`tools.which_flow` writes them into its table. Images are looked for under ``FLOWZOO_DATA``.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from flowzoo.data import get_dataset
from flowzoo.data.images import ImageSet
from flowzoo.data.pipeline import TrainBatches
from flowzoo.distributed import World
from flowzoo.evaluation.likelihood import likelihoods
from flowzoo.evaluation.metrics import mean_and_stderr, nats_to_bpd
from flowzoo.evaluation.noise import training_noise
from flowzoo.flow import Flow
from flowzoo.training.ema import Ema
from flowzoo.training.opening import decide_precision
from flowzoo.training.optim import build_optimizer, set_lr
from flowzoo.training.recipe import Recipe
from flowzoo.training.step import gradient_step
from flowzoo.training.train import build_model, find_recipe, load_data
from tools.which_flow import PAGE, ROOT, ROWS, machine_name, one_thread, read_rows, render

SECONDS = 40.0

WARM_UP = 0.05
"""Share of the time in which the learning rate rises."""

IMAGES, BATCH = 1000, 100
"""Test images that are measured at most, and at a time."""

HERE = World(0, 1, torch.device("cpu"))


def factor(share: float) -> float:
    """The factor of the learning rate when this share of the time is over, of 0 to 1."""
    if share < WARM_UP:
        return share / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (share - WARM_UP) / (1 - WARM_UP)))


def trained(recipe: Recipe, images: ImageSet, seconds: float) -> tuple[Flow, int]:
    """Trains from nothing for so many seconds of processor time.

    Args:
        recipe: What to do, but for the schedule.
        images: Images that gradients see.
        seconds: The time.

    Returns:
        The averaged model in eval mode, and how many updates it has seen.
    """
    recipe = decide_precision(recipe, HERE.device)
    settings = recipe.train
    flow = build_model(recipe)
    batches = TrainBatches(images, settings.batch_size, settings.seed, augment=recipe.data.augment)
    began, updates = time.process_time(), 0
    _initialize(flow, recipe, images)
    optimizer = build_optimizer(recipe.optimizer, flow, settings.groups)
    average = Ema(flow, settings.ema)
    flow.set_network_dtype(torch.bfloat16 if settings.precision == "bfloat16" else None)
    flow.set_memory(settings.memory)
    flow.train()
    gradients = gradient_step(flow, recipe, HERE)
    while (spent := time.process_time() - began) < seconds:
        set_lr(optimizer, factor(spent / seconds))
        if gradients(next(batches)).finite:
            optimizer.step()
            average.update(updates)
        updates += 1
    batches.close()
    return average.ready().eval(), updates


def _initialize(flow: Flow, recipe: Recipe, images: ImageSet) -> None:
    """Data-dependent initialisation, as in a training."""
    settings = recipe.train
    x = images.batch(torch.arange(min(settings.init_images, len(images))))
    torch.manual_seed(settings.seed)
    flow.initialize(x, noise=training_noise(flow.noise_kind, tuple(x.shape), settings.seed, -1, HERE.device))


def tested(flow: Flow, images: ImageSet, seconds: float) -> dict[str, Any]:
    """Bits per dimension of images all over the split, one noise sample each, batch by batch while there is time.

    Args:
        flow: The model.
        images: The test split.
        seconds: Processor time after which no further batch is begun.
    """
    count, found = min(IMAGES, len(images)), torch.empty(0, dtype=torch.float64)
    # Each batch from all over the split: its first images are easier than the rest.
    chosen = torch.arange(count) * (len(images) // count)
    batches = [chosen[first :: -(-count // BATCH)] for first in range(-(-count // BATCH))]
    began = time.process_time()
    while batches and time.process_time() - began < seconds:
        order = batches.pop(0)
        part = likelihoods(flow, images, HERE, batch_size=BATCH, order=order)
        found = torch.cat((found, nats_to_bpd(part.log_prob, flow.dims)))
    mean = mean_and_stderr(found)
    return {"bpd": round(mean.value, 4), "stderr": round(mean.stderr, 4), "images": len(found)}


def measure(name: str, seconds: float) -> dict[str, Any]:
    """The figure of a preset: see the module.

    Args:
        name: Of the preset, such as ``glow-mnist``.
        seconds: Processor time.
    """
    recipe = find_recipe(name)
    images, _ = load_data(recipe, None)
    with one_thread():
        flow, updates = trained(recipe, images, seconds)
        found = tested(flow, get_dataset(str(recipe.data.dataset)).load("test"), seconds)
    date = dt.datetime.now(dt.UTC).date().isoformat()
    return {"seconds": seconds, "updates": updates, **found, "date": date, "machine": machine_name()}


def update(
    root: Path,
    seconds: float,
    names: tuple[str, ...],
    measured: Callable[[str, float], dict[str, Any]] = measure,
) -> None:
    """Measures what has no figure of so many seconds yet, or what is named, and writes rows and page after each."""
    for name in sorted(read_rows(root)):
        before = read_rows(root)[name].get("trained", {}).get("seconds")
        if name in names or (not names and before != seconds):
            click.echo(f"{name} ...", err=True)
            found = measured(read_rows(root)[name]["preset"], seconds)
            # Read again: others may have written meanwhile.
            rows = read_rows(root)
            rows[name]["trained"] = found
            (root / ROWS).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            (root / PAGE).write_text(render(rows), encoding="utf-8")
            click.echo(f"{name}: {found['bpd']} bits/dim after {found['updates']} updates")


@click.command()
@click.option("--seconds", default=SECONDS, show_default=True, help="Processor time of each training.")
@click.option("--only", "names", multiple=True, help="Measure this architecture anew; repeatable.")
def main(seconds: float, names: tuple[str, ...]) -> None:
    """Trains every architecture's model for MNIST for the same processor time, and measures it."""
    unknown = sorted(set(names) - set(read_rows(ROOT)))
    if unknown:
        raise click.ClickException(f"not in {ROWS}: {', '.join(unknown)}. Run: python -m tools.which_flow")
    update(ROOT, seconds, names)


if __name__ == "__main__":
    main()
