"""The log-likelihood of every image of a set, as a function of weights, images and seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowzoo.data.pipeline import eval_batches
from flowzoo.distributed import World, gather
from flowzoo.evaluation.metrics import LogMeanExp
from flowzoo.evaluation.noise import keyed_noise
from flowzoo.evaluation.precision import full_precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from flowzoo.data.images import ImageSet
    from flowzoo.flow import Flow


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """The log-likelihood of each image.

    Attributes:
        indices: int64 ``(N,)``, positions in the split, ascending, each once.
        log_prob: float64 ``(N,)``, nats: log (1/k) sum over k noise samples of P(x, u) / q(u|x).
    """

    indices: Tensor
    log_prob: Tensor


@torch.no_grad()
def likelihoods(
    flow: Flow,
    images: ImageSet,
    where: World,
    *,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 100,
    order: Tensor | None = None,
    on_batch: Callable[[Tensor, Tensor], None] | None = None,
) -> Likelihoods:
    """Measures the log-likelihood of every image, shared by all processes.

    Neither batch size, order nor number of processes changes a noise sample; what remains are the
    last bits of float32 convolutions over batches of other sizes.

    Args:
        flow: A flow in eval mode, in the dtype to measure in.
        images: The images.
        where: This process.
        samples: Noise samples k an image; memory does not grow with it.
        seed: Key of the noise.
        batch_size: Images computed at a time.
        order: int64 positions to go through instead of all in order.
        on_batch: Called with the positions and uint8 images (on the device) of each batch.

    Returns:
        The values of all images, in every process.
    """
    found_indices, found = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.float64)]
    dtype = next(flow.parameters()).dtype
    with full_precision(flow, where.device), flow.frozen():
        for indices, batch in eval_batches(images, batch_size, where.rank, where.size, order=order):
            x = batch.to(where.device)
            bound = LogMeanExp()
            for sample in range(samples):
                noise = keyed_noise(
                    flow.noise_kind, flow.image_shape, seed, indices.tolist(), sample, dtype=dtype
                )
                bound.add(flow.log_prob(x, noise=noise.to(where.device)))
            found_indices.append(indices)
            found.append(bound.result().cpu())
            if on_batch is not None:
                on_batch(indices, x)
    joint = torch.cat(gather(torch.cat(found_indices), where))
    values = torch.cat(gather(torch.cat(found), where))
    positions = torch.argsort(joint)
    return Likelihoods(joint[positions], values[positions])
