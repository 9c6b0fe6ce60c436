"""One update's gradients: joint batch, parts, processes and noise."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from flowzoo.distributed import World, all_mean
from flowzoo.errors import ConfigError
from flowzoo.evaluation.noise import derive_seed, training_noise
from flowzoo.training.optim import clip_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.data.pipeline import Batch
    from flowzoo.flow import Flow
    from flowzoo.training.recipe import Train


@dataclass(frozen=True, slots=True)
class Gradients:
    """Figures of a joint batch's backward pass.

    Attributes:
        loss: Mean bits per dimension of the joint batch.
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


class GradientStep:
    """Computes the gradient of the mean bits per dimension of a joint batch.

    Noise is drawn for the joint batch and cut into shares, so that any number of processes and parts
    sees the same noise for the same image.

    Args:
        flow: The flow.
        recipe: The loop's settings.
        where: This process.
    """

    def __init__(self, flow: Flow, recipe: Train, where: World) -> None:
        self.flow, self.recipe, self.where = flow, recipe, where
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
        """
        recipe, flow = self.recipe, self.flow
        self.seed(batch)
        parts = self.parts(batch)
        self.model.zero_grad(set_to_none=True)
        losses = []
        for i, (images, part_noise) in enumerate(parts):
            waits = self.parallel is not None and i + 1 < len(parts)
            with self.parallel.no_sync() if waits and self.parallel else contextlib.nullcontext():
                losses.append(self._part(self.flow if plain else self.model, images, part_noise, len(parts)))
        norm = clip_gradients(flow.parameters(), recipe.clip_norm if clip else None)
        total = all_mean(torch.stack(losses).sum(), self.where)
        loss_value, norm_value = torch.stack([total.double(), norm.double()]).tolist()
        clipped = recipe.clip_norm is not None and norm_value > recipe.clip_norm
        return Gradients(loss_value, norm_value, clipped)

    def seed(self, batch: Batch) -> None:
        """Seeds dropout and whatever else draws from torch's own generators."""
        torch.manual_seed(derive_seed(self.recipe.seed, batch.step, "layers", self.where.rank))

    def parts(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """The parts that a batch is computed in: images and their noise, each ``(B, C, H, W)``."""
        recipe, flow = self.recipe, self.flow
        shape = (recipe.batch_size, *flow.image_shape)
        noise = training_noise(flow.noise_kind, shape, recipe.seed, batch.step, self.where.device)
        noise = noise[batch.first : batch.first + batch.images.shape[0]]
        return list(zip(batch.images.chunk(recipe.accumulate), noise.chunk(recipe.accumulate), strict=True))

    def _part(self, model: nn.Module, images: Tensor, noise: Tensor, parts: int) -> Tensor:
        """Adds the gradients of one of ``parts``; returns its share of the mean bits per dimension, a scalar."""
        try:
            loss = self.flow.nats_to_bits(model(images, noise)).mean() / parts
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
