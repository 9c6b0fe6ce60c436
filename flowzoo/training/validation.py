"""A look at the held-out images between updates: figure, pictures, best weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from flowzoo.analysis.curves import save_curve
from flowzoo.analysis.densities import save_picture
from flowzoo.analysis.grids import save_grid
from flowzoo.data.vectors import VectorSet
from flowzoo.errors import FlowzooError
from flowzoo.evaluation.likelihood import likelihoods
from flowzoo.evaluation.metrics import Mean, mean_and_stderr, nats_to_bpd
from flowzoo.training.export import weights_metadata
from flowzoo.weights.checkpoint import save_weights

if TYPE_CHECKING:
    from pathlib import Path

    from flowzoo.data.images import ImageSet
    from flowzoo.distributed import World
    from flowzoo.flow import Flow
    from flowzoo.training.recipe import Recipe
    from flowzoo.training.run_dir import RunDir

VALIDATION_SEED = 0
"""The same noise at every validation, so that differences come from the weights."""

VALIDATION_BATCH = 100


def figure_column(flow: Flow) -> str:
    """The column that a validation's figure has in ``metrics.jsonl``: ``bpd``, or ``nats_per_dim`` of a density."""
    return "bpd" if flow.valid_bpd else "nats_per_dim"


def validate(flow: Flow, images: ImageSet, where: World, *, labels: bool = False) -> Mean:
    """Mean bits (of a density: nats) per dimension of held-out items with one fixed noise sample each.

    Args:
        flow: The model, in eval mode.
        images: The held-out images or vectors.
        where: This process.
        labels: Whether that is of x given its label.
    """
    y = images.labels if labels else None
    found = likelihoods(flow, images, where, labels=y, seed=VALIDATION_SEED, batch_size=VALIDATION_BATCH)
    if flow.valid_bpd:
        return mean_and_stderr(nats_to_bpd(found.log_prob, flow.dims))
    return mean_and_stderr(-found.log_prob / flow.dims)


def write_weights(flow: Flow, recipe: Recipe, path: Path, *, step: int, best: float) -> None:
    """Writes averaged weights with what they are; equal trainings write equal bytes."""
    facts = {"step": step, f"valid_{figure_column(flow)}": best}
    save_weights(flow, path, weights_metadata(flow, recipe.name, recipe.data.dataset, **facts))


def write_pictures(flow: Flow, recipe: Recipe, run: RunDir, step: int, held_out: ImageSet) -> str | None:
    """Writes the training curve, and samples: a grid of images, or points beside the density of one or two numbers.

    The latents are the same every time, so that pictures of different steps can be compared.

    Returns:
        What went wrong, or None. Pictures never stop a training.
    """
    try:
        save_curve(run.likelihoods(), run.curve, title=recipe.name)
        if recipe.train.samples:
            _write_samples(flow, recipe, run.samples / f"{step:09d}.png", held_out)
    except (FlowzooError, MemoryError, OSError, RuntimeError) as error:
        return str(error)
    return None


def _write_samples(flow: Flow, recipe: Recipe, path: Path, held_out: ImageSet) -> None:
    if isinstance(held_out, VectorSet):
        if flow.dims <= 2:
            save_picture(flow, held_out, path, name=recipe.name, seed=recipe.train.seed)
        return
    generator = torch.Generator().manual_seed(recipe.train.seed)
    images = flow.sample(recipe.train.samples, temperature=recipe.train.temperature, generator=generator)
    save_grid(images, path)
