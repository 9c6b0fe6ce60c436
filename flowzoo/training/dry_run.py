"""A training tried for three updates: everything decided, nothing written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from flowzoo.data.pipeline import TrainBatches
from flowzoo.devices import find_device
from flowzoo.distributed import World
from flowzoo.evaluation.noise import training_noise
from flowzoo.training.fitting import check_fit
from flowzoo.training.opening import decide_precision
from flowzoo.training.optim import build_optimizer
from flowzoo.training.step import gradient_step
from flowzoo.training.train import build_model, load_data
from flowzoo.training.used import used_by

if TYPE_CHECKING:
    import os

    from torch import Tensor

    from flowzoo.flow import Flow
    from flowzoo.training.recipe import Recipe

TIMED_STEPS = 3


class SavedTensors:
    """Counts the bytes that a forward pass keeps for its backward pass."""

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: set[int] = set()

    def keep(self, tensor: Tensor) -> Tensor:
        """Called by autograd for each tensor that it saves; storages are counted once."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def dry_run(
    recipe: Recipe,
    *,
    data_root: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
) -> dict[str, Any]:
    """Builds the model, initialises it and times a few updates, in memory only.

    Returns:
        The resolved recipe, its precision decided; parameters; bytes of weights with optimizer and average, and of
        activations for one part of a batch; loss of the first batch; seconds an
        update; hours of the whole training on this machine, validations left out.
    """
    target = find_device(device, computing=True)
    where, asked = World(0, 1, target), recipe.train.precision
    recipe = decide_precision(recipe, target)
    used = used_by(recipe)
    train_set, valid_set = load_data(recipe, data_root)
    flow = build_model(recipe).to(target)
    check_fit(flow, recipe, (train_set, valid_set))
    settings = recipe.train
    with torch.random.fork_rng([target] if target.type == "cuda" else []):
        count = min(settings.init_images, len(train_set))
        images = train_set.batch(torch.arange(count)).to(target)
        y = train_set.needed_labels()[:count].to(target) if recipe.data.labels else None
        noise = training_noise(flow.noise_kind, tuple(images.shape), settings.seed, -1, target)
        flow.initialize(images, y, noise=noise)
        flow.set_network_dtype(torch.bfloat16 if settings.precision == "bfloat16" else None)
        flow.set_memory(settings.memory)
        flow.train()
        activations = _activation_bytes(flow, images[: max(1, settings.batch_size // settings.accumulate)])
        batches = TrainBatches(train_set, settings.batch_size, settings.seed, device=target)
        optimizer = build_optimizer(recipe.optimizer, flow, settings.groups)
        step, losses = gradient_step(flow, recipe, where), []
        for _ in range(TIMED_STEPS):
            began = time.monotonic()
            losses.append(step(next(batches)).loss)
            optimizer.step()
        seconds = time.monotonic() - began
    parameters = sum(p.numel() for p in flow.parameters())
    total = settings.total_steps(len(train_set))
    return {
        "recipe": recipe.to_dict(),
        "used": ", ".join(
            f"{one['kind']} {one['name']} ({one['distribution']} {one['version']})" for one in used
        ),
        "device": str(target),
        "precision of networks": f"{settings.precision} (auto)" if asked == "auto" else settings.precision,
        f"training {flow.data_kind}": len(train_set),
        f"held-out {flow.data_kind}": len(valid_set),
        "parameters": parameters,
        # weights, gradients, two moments, average
        "bytes of weights and optimizer": 5 * sum(p.numel() * p.element_size() for p in flow.parameters()),
        "bytes of activations": activations,
        f"first loss ({flow.unit})": round(losses[0], 4),
        "updates": total,
        "seconds an update": round(seconds, 4),
        "estimated hours": round(total * seconds / 3600, 2),
    }


def _activation_bytes(flow: Flow, images: Tensor) -> int:
    counter = SavedTensors()
    with torch.autograd.graph.saved_tensors_hooks(counter.keep, lambda tensor: tensor):
        flow(images, flow.draw_noise(len(images)))
    return counter.bytes
