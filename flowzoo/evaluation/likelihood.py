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
from flowzoo.nets.keyed import Keys

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
        log_prob: float64 ``(N,)``, nats: log (1/k) sum over k noise samples of P(x, u) / q(u|x); the mean of that
            over the probes of an estimated log-determinant.
        probe_variance: float64 ``(N,)``, nats squared: of that mean, from the scatter of the probes; NaN of a single
            probe.
    """

    indices: Tensor
    log_prob: Tensor
    probe_variance: Tensor


@torch.no_grad()
def likelihoods(
    flow: Flow,
    images: ImageSet,
    where: World,
    *,
    labels: Tensor | int | None = None,
    samples: int = 1,
    probes: int = 1,
    seed: int = 0,
    batch_size: int = 100,
    order: Tensor | None = None,
    on_batch: Callable[[Tensor, Tensor, Tensor | int | None], None] | None = None,
) -> Likelihoods:
    """Measures the log-likelihood of every image, shared by all processes.

    Neither batch size, order nor number of processes changes a noise sample; what remains are the
    last bits of float32 convolutions over batches of other sizes.

    Args:
        flow: A flow in eval mode, in the dtype to measure in.
        images: The images.
        where: This process.
        labels: int64 ``(N,)`` of all images, or one for all, for log P(x|y); None for log P(x).
        samples: Noise samples k an image; memory does not grow with it.
        probes: Probes of an estimated log-determinant, over which the log-probability is averaged: the mean is
            unbiased where each is, while a log-mean-exp would be too good (Jensen).
        seed: Key of the noise.
        batch_size: Images computed at a time.
        order: int64 positions to go through instead of all in order.
        on_batch: Called with the positions, images and labels (on the device) of each batch.

    Returns:
        The values of all images, in every process.
    """
    found_indices = [torch.empty(0, dtype=torch.int64)]
    found = [torch.empty(0, 2, dtype=torch.float64)]
    with full_precision(flow, where.device), flow.frozen():
        for indices, batch in eval_batches(images, batch_size, where.rank, where.size, order=order):
            x = batch.to(where.device)
            y = labels[indices].to(where.device) if isinstance(labels, torch.Tensor) else labels
            per_probe = [_bound(flow, x, y, indices.tolist(), samples, seed, k) for k in range(probes)]
            values = torch.stack(per_probe)
            variance = values.var(dim=0) / probes if probes > 1 else torch.full_like(values[0], torch.nan)
            found_indices.append(indices)
            found.append(torch.stack((values.mean(dim=0), variance), dim=1).cpu())
            if on_batch is not None:
                on_batch(indices, x, y)
    joint = torch.cat(gather(torch.cat(found_indices), where))
    joined = torch.cat(gather(torch.cat(found), where))
    positions = torch.argsort(joint)
    log_prob, probe_variance = joined[positions].unbind(dim=1)
    return Likelihoods(joint[positions], log_prob.contiguous(), probe_variance.contiguous())


def _bound(
    flow: Flow, x: Tensor, y: Tensor | int | None, items: list[int], samples: int, seed: int, probe: int
) -> Tensor:
    """The log-probability ``(B,)`` in nats under one probe: log-mean-exp over the samples of the noise."""
    dtype = flow.draw_noise(0).dtype
    bound = LogMeanExp()
    for sample in range(samples):
        noise = keyed_noise(flow.noise_kind, flow.data_shape, seed, items, sample, dtype=dtype)
        keys = Keys(seed=seed, items=items, probe=probe, sample=sample)
        bound.add(flow.log_prob(x, y, noise=noise.to(x.device), keys=keys))
    return bound.result()
