"""A look at the held-out images between updates: figure, pictures, best weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from flowzoo.analysis.curves import save_curve
from flowzoo.analysis.grids import save_grid
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


def validate(flow: Flow, images: ImageSet, where: World) -> Mean:
    """Mean bits per dimension of held-out images with one fixed noise sample each."""
    found = likelihoods(flow, images, where, seed=VALIDATION_SEED, batch_size=VALIDATION_BATCH)
    return mean_and_stderr(nats_to_bpd(found.log_prob, flow.dims))


def write_weights(flow: Flow, recipe: Recipe, path: Path, *, step: int, bpd: float) -> None:
    """Writes averaged weights with what they are; equal trainings write equal bytes."""
    facts = {"step": step, "valid_bpd": bpd}
    save_weights(flow, path, weights_metadata(flow, recipe.name, recipe.data.dataset, **facts))


def write_pictures(flow: Flow, recipe: Recipe, run: RunDir, step: int) -> str | None:
    """Writes the sample grid and the training curve.

    The latents are the same every time, so that grids of different steps can be compared.

    Returns:
        What went wrong, or None. Pictures never stop a training.
    """
    try:
        save_curve(run.history(), run.curve, title=recipe.name)
        if recipe.train.samples:
            generator = torch.Generator().manual_seed(recipe.train.seed)
            images = flow.sample(
                recipe.train.samples, temperature=recipe.train.temperature, generator=generator
            )
            save_grid(images, run.samples / f"{step:09d}.png")
    except (FlowzooError, MemoryError, OSError, RuntimeError) as error:
        return str(error)
    return None
