"""Attributes that are measured from pixels, and their directions in a model's latent space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from flowzoo.analysis.batches import draw
from flowzoo.analysis.directions import Direction, find_direction, manipulate
from flowzoo.errors import FlowzooError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["STRENGTHS", "attributes_of", "direction_of", "moved"]

STRENGTHS = tuple(round(0.1 * k, 1) for k in range(-7, 8))
"""How far an image is moved along a direction, from the left end of the slider to the right one."""

_FROM_DATA, _FROM_SAMPLES = 240, 64


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ink of each image, and distances of pixels down and right of its centre: ``(N, H, W)`` each."""
    ink = x.double().mean(dim=1)
    down, right = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64) for size in ink.shape[1:]), indexing="ij"
    )
    total = ink.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    down = down - (ink * down).sum(dim=(1, 2), keepdim=True) / total
    right = right - (ink * right).sum(dim=(1, 2), keepdim=True) / total
    return ink / total, down, right


def slant(x: Tensor) -> Tensor:
    """How much strokes lean to the right, ``(N,)``: minus the regression of right on down."""
    ink, down, right = _moments(x)
    return -(ink * down * right).sum(dim=(1, 2)) / (ink * down * down).sum(dim=(1, 2)).clamp_min(1e-6)


def width(x: Tensor) -> Tensor:
    """The spread of ink from left to right over that from top to bottom, ``(N,)``."""
    ink, down, right = _moments(x)
    return (ink * right * right).sum(dim=(1, 2)) / (ink * down * down).sum(dim=(1, 2)).clamp_min(1e-6)


def brightness(x: Tensor) -> Tensor:
    """The mean grey level, ``(N,)``."""
    return x.double().flatten(1).mean(dim=1)


def warmth(x: Tensor) -> Tensor:
    """Red less blue, ``(N,)``."""
    return (x[:, 0].double() - x[:, -1].double()).flatten(1).mean(dim=1)


def contrast(x: Tensor) -> Tensor:
    """The standard deviation of grey levels, ``(N,)``."""
    return x.double().flatten(1).std(dim=1)


Measure = Callable[["Tensor"], "Tensor"]
_GREY: Mapping[str, Measure] = {"slant": slant, "width": width, "brightness": brightness}
_COLOUR: Mapping[str, Measure] = {"brightness": brightness, "warmth": warmth, "contrast": contrast}


def attributes_of(flow: Flow) -> Mapping[str, Measure]:
    """The attributes that are offered of a model's images, by their names."""
    return _GREY if flow.image_shape[0] == 1 else _COLOUR


def direction_of(flow: Flow, name: str, dataset: str, y: int | None = None) -> Direction:
    """The direction of an attribute: from the fifth of images that have least of it to the fifth that have most.

    Args:
        flow: A flow over images.
        name: The attribute.
        dataset: Id of the data set whose first test images are measured; samples of the flow, if it is not here.
        y: Class of the images, for a conditional flow.

    Raises:
        InputError: There is no such attribute.
    """
    measure = attributes_of(flow).get(name)
    if measure is None:
        raise InputError(f"there is no attribute {name!r}; there are {', '.join(attributes_of(flow))}.")
    x = _images(flow, dataset, y)
    order = measure(x).argsort()
    fifth = max(1, len(x) // 5)
    return find_direction(flow, x[order[-fifth:]], x[order[:fifth]], y, name=name)


def _images(flow: Flow, dataset: str, y: int | None) -> Tensor:
    from flowzoo.data.registry import get_dataset

    try:
        found = get_dataset(dataset).load("test")
        if found.image_shape == flow.image_shape:
            return found[: min(len(found), _FROM_DATA)]
    except FlowzooError:
        pass  # not here: the model knows what its images look like
    return draw(flow, _FROM_SAMPLES, y, temperature=0.8).cpu()


def moved(flow: Flow, x: Tensor, direction: Direction, y: int | None = None) -> tuple[list[float], Tensor]:
    """An image ``(1, C, H, W)`` at every one of :data:`STRENGTHS` at which it is finite, and these strengths."""
    try:
        return list(STRENGTHS), manipulate(flow, x, direction, STRENGTHS, y)[0]
    except InputError:
        strengths, images = [], []
        for strength in STRENGTHS:
            try:
                images.append(manipulate(flow, x, direction, (strength,), y)[0])
            except InputError:
                continue
            strengths.append(strength)
        return strengths, torch.cat(images)
