"""How a flow makes images from noise, layer by layer, each step arranged as pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from flowzoo.analysis.batches import require_images
from flowzoo.analysis.layers import RESCALING
from flowzoo.bijectors.base import Bijector, Inverse
from flowzoo.bijectors.chain import Chain
from flowzoo.bijectors.multiscale import FactorOut
from flowzoo.bijectors.reshape import Flatten, Patches, Squeeze
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["GenerationStep", "generation_steps"]

_REARRANGING = (Flatten, Squeeze, Patches)
_SHARE = 0.005
"""Of the values of a step, at either end, that are drawn black or white."""


@dataclass(frozen=True, slots=True)
class GenerationStep:
    """Images after some layers of a flow run backwards.

    Attributes:
        layers: Layers behind them; 0 is noise.
        name: Class of the last of these; ``"noise"`` before the first.
        images: ``uint8 (n, C, H, W)`` on the CPU, the step's range of values drawn from black to white; of the last
            step, the images themselves.
    """

    layers: int
    name: str
    images: Tensor


@torch.no_grad()
def generation_steps(
    flow: Flow,
    n: int,
    y: Tensor | int | None = None,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    steps: int = 8,
) -> list[GenerationStep]:
    """Draws latents and runs the layers of a flow backwards on them, one after the other.

    Values lie at the pixels that they become: rearrangements that are still to come are done at once, the other layers
    to come are left out. Of an augmented flow the image's own part is shown.

    Args:
        flow: A flow over images.
        n: How many images.
        y: Labels ``(n,)``, or one for all, of a conditional flow.
        temperature: Factor on the latents.
        seed: Of the latents.
        steps: The most that are shown, from noise to images, evenly spread over the layers.

    Returns:
        The steps in order; that a layer only rescales or rearranges values is none.

    Raises:
        InputError: The flow is of vectors, fewer than two steps are asked for, or the flow needs labels and got none.
    """
    require_images(flow, "a picture from noise to images")
    if steps < 2:
        raise InputError(f"steps is {steps}; expected at least 2, noise and images.")
    context = flow.context_of(y, n)
    if context is None and flow.labels is not None and not flow.labels.dropout:
        raise InputError("the model draws images by label; give y, a label for each or one for all.")
    was_training = flow.training
    flow.eval()
    try:
        with flow.frozen():
            device, dtype = flow._placement()
            generator = torch.Generator().manual_seed(seed)
            z = flow.base.sample(n, flow.latent_dims, generator=generator, device=device, dtype=dtype)
            z = flow.base.at_temperature(z, temperature)
            found = [("noise", _arranged(flow.bijector, z))]
            for layer, x in _backwards(flow.bijector, z, context):
                if not _rearranges(layer) and not isinstance(layer, RESCALING):
                    found.append((type(layer).__name__, x))
            images = flow.decode(
                z, y
            ).cpu()  # checks that they are finite, and solves as the model does elsewhere
    finally:
        flow.train(was_training)
    steps_shown = [
        GenerationStep(number, found[number][0], _grey(found[number][1], flow.image_shape))
        for number in _spread(len(found), steps)
    ]
    return [*steps_shown[:-1], replace(steps_shown[-1], images=images)]


def _spread(count: int, most: int) -> Sequence[int]:
    """The first and the last of so many numbers, and others between, evenly spread."""
    most = min(count, most)
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _backwards(bijector: Bijector, z: Tensor, context: Tensor | None) -> Iterator[tuple[Bijector, Tensor]]:
    """The layers inside, the last first, with what they make of z as the bijector's input would have it.

    The last of these is the bijector's inverse of z.
    """
    if isinstance(bijector, Chain):
        layers = list(bijector)
        for place in reversed(range(len(layers))):
            for layer, x in _backwards(layers[place], z, context):
                yield layer, _all_arranged(layers[:place], x)
            z = x
    elif isinstance(bijector, FactorOut):
        rest, left = z.chunk(2, dim=1)
        for layer, kept in _backwards(bijector.rest, rest, context):
            out = left.reshape(kept.shape)
            yield layer, bijector.partition.merge(kept, out)
        if bijector.prior is not None:
            out, _ = bijector.prior.inverse(out, kept)
            yield bijector.prior, bijector.partition.merge(kept, out)
    else:
        yield bijector, bijector.inverse(z, context)[0]


def _rearranges(layer: Bijector) -> bool:
    """Whether a layer moves values to other places and does nothing else."""
    inside = layer.bijector if isinstance(layer, Inverse) else layer
    return isinstance(inside, _REARRANGING)


def _arranged(bijector: Bijector, z: Tensor) -> Tensor:
    """The values of z at the places of the bijector's input that they go to, otherwise unchanged."""
    if isinstance(bijector, Chain):
        return _all_arranged(list(bijector), z)
    if isinstance(bijector, FactorOut):
        rest, left = z.chunk(2, dim=1)
        kept = _arranged(bijector.rest, rest)
        return bijector.partition.merge(kept, left.reshape(kept.shape))
    return bijector.inverse(z)[0] if _rearranges(bijector) else z


def _all_arranged(layers: Sequence[Bijector], z: Tensor) -> Tensor:
    """The same for layers in a row."""
    for layer in reversed(layers):
        z = _arranged(layer, z)
    return z


def _grey(values: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    """``uint8 (n, C, H, W)``: all but the outermost values from black to white."""
    dims = torch.Size(image_shape).numel()
    # In front of what an augmented flow has beside the image.
    values = values.flatten(1)[:, :dims].reshape(-1, *image_shape).float().cpu().nan_to_num()
    low, high = (values.flatten().quantile(share) for share in (_SHARE, 1 - _SHARE))
    return ((values - low) / (high - low).clamp(min=1e-9) * 255).clamp(0, 255).byte()
