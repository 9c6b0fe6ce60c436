"""One update's gradients: joint batch, parts, processes and noise."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from flowzoo.distributed import World, all_mean
from flowzoo.errors import ConfigError, OutOfMemory, exhausted
from flowzoo.evaluation.noise import derive_seed, keyed_generator, training_noise
from flowzoo.labels import NO_LABEL
from flowzoo.training.objectives import find_objective, negative_log_likelihood, require_losses
from flowzoo.training.optim import clip_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.data.pipeline import Batch
    from flowzoo.flow import Flow
    from flowzoo.training.objectives import Objective
    from flowzoo.training.recipe import Recipe, Train

    Part = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True, slots=True)
class Gradients:
    """Figures of a joint batch's backward pass.

    Attributes:
        loss: Mean loss of the joint batch, in the flow's unit unless an objective of one's own is minimised.
        norm: Norm of the gradient before clipping.
        clipped: Whether it was scaled down.
    """

    loss: float
    norm: float
    clipped: bool

    @property
    def finite(self) -> bool:
        """Whether an update with these gradients keeps the weights finite."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


def gradient_step(
    flow: Flow, recipe: Recipe, where: World, objective: Objective | None = None
) -> GradientStep:
    """The gradients of a whole recipe: its objective, and labels if it has them.

    Args:
        flow: The flow.
        recipe: The recipe.
        where: This process.
        objective: The function that the recipe's objective stands for, if a program gave it.
    """
    found = find_objective(recipe.train.objective, objective)
    loss = None if found is None else found.value
    return GradientStep(flow, recipe.train, where, objective=loss, labels=recipe.data.labels)


class GradientStep:
    """Computes the gradient of the mean loss of a joint batch.

    Noise, and which labels are left out, is drawn for the joint batch and cut into shares, so that any number of
    processes and parts sees the same for the same item.

    Args:
        flow: The flow.
        recipe: The loop's settings.
        where: This process.
        objective: The loss of each item; None for bits (or nats) per dimension.
        labels: Whether the labels of the batches are conditioned on.
    """

    def __init__(
        self,
        flow: Flow,
        recipe: Train,
        where: World,
        *,
        objective: Objective | None = None,
        labels: bool = False,
    ) -> None:
        self.flow, self.recipe, self.where = flow, recipe, where
        self.objective, self.labels = objective or negative_log_likelihood, labels
        callee: nn.Module = torch.compile(flow) if recipe.compile else flow  # type: ignore[assignment]
        self.parallel: nn.parallel.DistributedDataParallel | None = None
        if where.size > 1:
            devices = [where.device] if where.device.type == "cuda" else None
            self.parallel = nn.parallel.DistributedDataParallel(callee, device_ids=devices)
        self.model: nn.Module = self.parallel if self.parallel is not None else callee

    def __call__(self, batch: Batch, *, plain: bool = False, clip: bool = True) -> Gradients:
        """Leaves clipped gradients in the parameters; waits for the device once.

        Args:
            batch: This process's share.
            plain: Call the flow itself, not compiled and not joined with other processes: the gradients are
                those of this process's share.
            clip: Whether to clip; a norm that is not finite would make every gradient so.

        Raises:
            OutOfMemory: The batch does not fit; the message says which would.
        """
        try:
            return self._gradients(batch, plain=plain, clip=clip)
        except (RuntimeError, MemoryError) as error:
            if exhausted(error) != "memory":
                raise
            # The error's text alone: its traceback holds this frame, and all tensors of the step with it.
            said = str(error)
        self.model.zero_grad(set_to_none=True)
        raise OutOfMemory(self._smaller_batch(said)) from None

    def _smaller_batch(self, cause: str) -> str:
        """The line for a batch that does not fit: what was tried, and what to try."""
        recipe, where = self.recipe, self.where
        at_once = recipe.batch_size // (where.size * recipe.accumulate)
        share = recipe.batch_size // where.size
        parts = next((n for n in range(2 * recipe.accumulate, share + 1) if share % n == 0), None)
        said = " ".join(cause.split()).partition(". ")[0]
        start = f"out of memory on {where.device} in an update with {at_once} {self.flow.data_kind} at once"
        lighter = "" if recipe.memory == "invertible" else ", or --set train.memory=invertible"
        if parts is None:
            what = f"No smaller part of the batch is left: take a smaller model{lighter}"
        else:
            what = (
                f"Try --set train.accumulate={parts}, which computes {share // parts} at a time and gives the same "
                f"updates{lighter}"
            )
        return f"{start} ({said}). {what}."

    def _gradients(self, batch: Batch, *, plain: bool, clip: bool) -> Gradients:
        recipe, flow = self.recipe, self.flow
        self.seed(batch)
        parts = self.parts(batch)
        self.model.zero_grad(set_to_none=True)
        losses = []
        for i, part in enumerate(parts):
            waits = self.parallel is not None and i + 1 < len(parts)
            with self.parallel.no_sync() if waits and self.parallel else contextlib.nullcontext():
                losses.append(self._part(self.flow if plain else self.model, part, len(parts)))
        norm = clip_gradients(flow.parameters(), recipe.clip_norm if clip else None)
        total = all_mean(torch.stack(losses).sum(), self.where)
        loss_value, norm_value = torch.stack([total.double(), norm.double()]).tolist()
        clipped = recipe.clip_norm is not None and norm_value > recipe.clip_norm
        return Gradients(loss_value, norm_value, clipped)

    def seed(self, batch: Batch) -> None:
        """Seeds dropout and whatever else draws from torch's own generators."""
        torch.manual_seed(derive_seed(self.recipe.seed, batch.step, "layers", self.where.rank))

    def parts(self, batch: Batch) -> list[Part]:
        """The parts that a batch is computed in: items ``(B, ...)``, their noise, and labels ``(B,)`` or None."""
        recipe, flow = self.recipe, self.flow
        count = len(batch.images)
        share = slice(batch.first, batch.first + count)
        shape = (recipe.batch_size, *flow.data_shape)
        noise = training_noise(flow.noise_kind, shape, recipe.seed, batch.step, self.where.device)[share]
        labels: list[Tensor | None] = [None] * recipe.accumulate
        if self.labels:
            labels = list(self._labels(batch, share).chunk(recipe.accumulate))
        images = batch.images.chunk(recipe.accumulate)
        return list(zip(images, noise.chunk(recipe.accumulate), labels, strict=True))

    def _labels(self, batch: Batch, share: slice) -> Tensor:
        """Labels of a batch, some of them left out: which ones is a function of (seed, step, place)."""
        assert batch.labels is not None
        if not self.recipe.label_dropout:
            return batch.labels
        # On the CPU, so that every device leaves out the same.
        generator = keyed_generator("cpu", self.recipe.seed, batch.step, "labels")
        left_out = torch.rand(self.recipe.batch_size, generator=generator)[share] < self.recipe.label_dropout
        return batch.labels.masked_fill(left_out.to(batch.labels.device, non_blocking=True), NO_LABEL)

    def _part(self, model: nn.Module, part: Part, parts: int) -> Tensor:
        """Adds the gradients of one of ``parts``; returns its share of the mean loss, a scalar."""
        images, noise, labels = part
        try:
            losses = self.objective(self.flow, model, images, noise, labels)
            name = getattr(self.objective, "__name__", type(self.objective).__name__)
            loss = require_losses(losses, len(images), name).mean() / parts
            # Backward passes are compiled when they first run.
            loss.backward()
        except RuntimeError as error:
            if self.recipe.compile and type(error).__module__.startswith(
                ("torch._dynamo", "torch._inductor")
            ):
                raise ConfigError(
                    f"torch.compile failed here ({str(error).splitlines()[0]}). It needs a C++ compiler (CPU) or "
                    "Triton (GPU); after an interrupted compilation, remove its cache, the folder torchinductor_USER "
                    "in the temporary directory. Or train without it: --set train.compile=false."
                ) from error
            raise
        return loss.detach()
