"""Vectors on their way through the layers of a flow's bijector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.chain import Chain
from flowzoo.bijectors.linear import Permutation
from flowzoo.bijectors.normalization import ActNorm, FlowBatchNorm
from flowzoo.bijectors.standardize import Standardize
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["RESCALING", "Stage", "layers_of", "through_layers"]

RESCALING = (Standardize, ActNorm, FlowBatchNorm, Permutation)
"""Layers that only rescale, shift or reorder values, so that nothing is to be seen of them in a picture."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where vectors are after some layers.

    Attributes:
        layer: Layers behind them; 0 is the data.
        name: Class of the last of these; ``"data"`` before the first.
        points: Float (B, D), on the CPU.
        time: Between 0 and 1 on the way through the last of these; None at its end.
        rescaled: Whether the last of these only rescales, shifts or reorders, so that nothing is to be seen.
    """

    layer: int
    name: str
    points: Tensor
    time: float | None = None
    rescaled: bool = False


def layers_of(bijector: Bijector) -> Iterator[Bijector]:
    """The bijectors of a chain in order, chains inside taken apart; any other bijector is its own only layer."""
    if not isinstance(bijector, Chain):
        yield bijector
        return
    for part in bijector:
        yield from layers_of(part)


@torch.no_grad()
def through_layers(flow: Flow, x: Tensor, y: Tensor | None = None, *, waypoints: int = 0) -> list[Stage]:
    """Sends vectors through a flow layer by layer.

    Args:
        flow: A flow over vectors without augmentation.
        x: Vectors (B, D).
        y: Labels (B,) of a conditional flow; None for no label, of a flow that has a way for that.
        waypoints: The most places inside a layer that moves points through time.

    Returns:
        The data, and the vectors after each layer; the last stage is the latent.

    Raises:
        InputError: The flow is conditional and cannot do without labels.
    """
    context = flow.context_of(y, len(x))
    if context is None and flow.labels is not None:
        raise InputError(
            "the model averages over labels where none are given, so no one way leads to the latent."
        )
    stages = [Stage(0, "data", x.cpu())]
    for number, layer in enumerate(layers_of(flow.bijector), start=1):
        name = type(layer).__name__
        for time, points in layer.waypoints(x, context, waypoints) if waypoints else ():
            stages.append(Stage(number, name, points.flatten(1).cpu(), time))
        x, _ = layer(x, context)
        stages.append(
            Stage(number, name, x.flatten(1).cpu(), rescaled=isinstance(layer, RESCALING)),
        )
    return stages
