"""Images of a flow on their way from noise, layer by layer, each step arranged as pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowzoo.analysis.batches import require_images
from flowzoo.bijectors.base import Bijector, Inverse
from flowzoo.bijectors.chain import Chain
from flowzoo.bijectors.linear import Permutation
from flowzoo.bijectors.multiscale import FactorOut
from flowzoo.bijectors.normalization import ActNorm, FlowBatchNorm
from flowzoo.bijectors.reshape import Flatten, Patches, Squeeze
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["Step", "unfold"]

_REARRANGING = (Flatten, Squeeze, Patches)
_UNSEEN = (*_REARRANGING, Inverse, ActNorm, FlowBatchNorm, Permutation)
_SHARE = 0.005
"""Of the values of a step, at either end, that are drawn black or white."""


@dataclass(frozen=True, slots=True)
class Step:
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
def unfold(
    flow: Flow,
    n: int,
    y: Tensor | int | None = None,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    steps: int = 8,
) -> list[Step]:
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
            parameter = next(flow.parameters())
            generator = torch.Generator().manual_seed(seed)
            z = flow.base.sample(
                n, flow.latent_dims, generator=generator, device=parameter.device, dtype=parameter.dtype
            )
            z = flow.base.at_temperature(z, temperature)
            found = [("noise", _arranged(flow.bijector, z))]
            found += [step for step in _backwards(flow.bijector, z, context) if step[0] not in _NAMES]
            images = flow.decode(z, y)
    finally:
        flow.train(was_training)
    chosen = _spread(len(found), steps)
    *before, last = [
        Step(number, found[number][0], _grey(found[number][1], flow.image_shape)) for number in chosen
    ]
    return [*before, Step(last.layers, last.name, images.cpu())]


_NAMES = {kind.__name__ for kind in _UNSEEN}


def _spread(count: int, most: int) -> Sequence[int]:
    """The first and the last of so many numbers, and others between, evenly spread."""
    most = min(count, most)
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _backwards(bijector: Bijector, z: Tensor, context: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    """What the layers inside make of z, the last first, each arranged as the bijector's input; the last is that."""
    if isinstance(bijector, Chain):
        layers = list(bijector)
        for place in reversed(range(len(layers))):
            for name, x in _backwards(layers[place], z, context):
                shown = x
                for before in reversed(layers[:place]):
                    shown = _arranged(before, shown)
                yield name, shown
            z = x
    elif isinstance(bijector, FactorOut):
        rest, left = z.chunk(2, dim=1)
        for name, kept in _backwards(bijector.rest, rest, context):
            out = left.reshape(kept.shape)
            yield name, bijector.partition.merge(kept, out)
        yield "FactorOut", bijector.inverse(z, context)[0]
    else:
        yield type(bijector).__name__, bijector.inverse(z, context)[0]


def _arranged(bijector: Bijector, z: Tensor) -> Tensor:
    """The values of z at the places of the bijector's input that they go to, otherwise unchanged."""
    if isinstance(bijector, Chain):
        for layer in reversed(list(bijector)):
            z = _arranged(layer, z)
        return z
    if isinstance(bijector, FactorOut):
        rest, left = z.chunk(2, dim=1)
        kept = _arranged(bijector.rest, rest)
        return bijector.partition.merge(kept, left.reshape(kept.shape))
    inside = bijector.bijector if isinstance(bijector, Inverse) else bijector
    return bijector.inverse(z)[0] if isinstance(inside, _REARRANGING) else z


def _grey(values: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    """``uint8 (n, C, H, W)``: all but the outermost values from black to white."""
    dims = torch.Size(image_shape).numel()
    # In front of what an augmented flow has beside the image.
    values = values.flatten(1)[:, :dims].reshape(-1, *image_shape).float().cpu().nan_to_num()
    low, high = (values.flatten().quantile(share) for share in (_SHARE, 1 - _SHARE))
    return ((values - low) / (high - low).clamp(min=1e-9) * 255).clamp(0, 255).byte()
