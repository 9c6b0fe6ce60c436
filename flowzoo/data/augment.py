"""Augmentation of uint8 images, on the device, as a function of (seed, step, place in the joint batch).

Every augmentation keeps the pixels whole numbers, so that a density over integers can be trained on its
output.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.keyed import keyed_bits, keyed_integers
from flowzoo.errors import PluginError
from flowzoo.registry.extensions import Extension, find_extension
from flowzoo.registry.isolation import describe

__all__ = ["AUGMENTATIONS", "augment", "find_augmentation", "flip", "parse_augmentations", "translate"]

GROUP = "flowzoo.augmentations"
"""The entry points; a value is a function of (images, seed, step, places), and of nothing else: a run resumes by it.

``images`` are uint8 (B, C, H, W) on any device, ``places`` int64 (B,) their places in the joint batch of all processes.
It returns images of the same type and shape."""

_FLIP_STREAM, _ROW_STREAM, _COLUMN_STREAM = 101, 102, 103


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirrors the chosen images left to right; doing it twice gives the images back.

    Args:
        images: uint8 (B, C, H, W).
        chosen: bool (B,), on the same device.

    Returns:
        uint8 (B, C, H, W).
    """
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def translate(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Moves every image by whole pixels; the border pixels are repeated into the space that opens.

    Args:
        images: uint8 (B, C, H, W).
        rows: int64 (B,), pixels to move down (negative: up).
        columns: int64 (B,), pixels to move right (negative: left).

    Returns:
        uint8 (B, C, H, W).
    """
    count, channels, height, width = images.shape
    device = images.device
    take_rows = (torch.arange(height, device=device) - rows[:, None]).clamp(0, height - 1)
    take_columns = (torch.arange(width, device=device) - columns[:, None]).clamp(0, width - 1)
    source = (take_rows[:, :, None] * width + take_columns[:, None, :]).reshape(count, 1, height * width)
    moved = images.flatten(2).gather(2, source.expand(-1, channels, -1))
    return moved.reshape(images.shape)


def _random_flip(images: Tensor, key: tuple[int, int], places: NDArray[np.uint64]) -> Tensor:
    chosen = keyed_bits((*key, _FLIP_STREAM), places) >> np.uint64(63) == 1
    return flip(images, torch.from_numpy(chosen).to(images.device, non_blocking=True))


def _by_a_tenth(images: Tensor, key: tuple[int, int], places: NDArray[np.uint64]) -> Tensor:
    height, width = images.shape[-2:]
    return _random_translation(images, key, places, (height // 10, width // 10))


def _by_a_pixel(images: Tensor, key: tuple[int, int], places: NDArray[np.uint64]) -> Tensor:
    return _random_translation(images, key, places, (1, 1))


def _random_translation(
    images: Tensor, key: tuple[int, int], places: NDArray[np.uint64], reach: tuple[int, int]
) -> Tensor:
    moves = [
        keyed_integers((*key, stream), places, -pixels, pixels + 1)
        for stream, pixels in zip((_ROW_STREAM, _COLUMN_STREAM), reach, strict=True)
    ]
    rows, columns = (torch.from_numpy(move).to(images.device, non_blocking=True) for move in moves)
    return translate(images, rows, columns)


AUGMENTATIONS: dict[str, Callable[[Tensor, tuple[int, int], NDArray[np.uint64]], Tensor]] = {
    "flip": _random_flip,
    "translate-10": _by_a_tenth,
    "shift-1": _by_a_pixel,
}
"""``flip``: mirrored left to right with probability 1/2. ``translate-10``: moved by a whole number of pixels,
uniform between minus and plus a tenth of the side (rounded down) in each direction, border repeated. ``shift-1``:
the same by at most one pixel. A model of all nine places of an image pays at most log2(9) bits an image for them."""


def parse_augmentations(spec: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Returns the augmentations that a recipe names, in the order in which they are applied.

    Args:
        spec: ``"none"``, ``""``, ``"flip"``, ``"flip,translate-10"``, or a sequence of names.

    Raises:
        ConfigError: if a name is unknown.
        PluginError: if the distribution that provides it is broken.
    """
    names = spec.split(",") if isinstance(spec, str) else spec
    kept = tuple(name.strip() for name in names if name.strip() not in ("", "none"))
    for name in kept:
        find_augmentation(name)
    return kept


def find_augmentation(name: str) -> Extension | None:
    """The entry point of an augmentation; None for one of :data:`AUGMENTATIONS`.

    Raises:
        ConfigError: if there is none of this name.
        PluginError: if the distribution that provides it is broken.
    """
    if name in AUGMENTATIONS:
        return None
    return find_extension(GROUP, name, ("none", *AUGMENTATIONS), "data.augment")


def augment(images: Tensor, names: tuple[str, ...], *, seed: int, step: int, first: int = 0) -> Tensor:
    """Augments a batch, each image by its place in the joint batch of all processes.

    Args:
        images: uint8 (B, C, H, W), on any device.
        names: Keys of :data:`AUGMENTATIONS`, applied in order.
        seed: The run's seed.
        step: Training step, counted from 0 over all epochs.
        first: Place of ``images[0]`` in the joint batch.

    Returns:
        uint8 (B, C, H, W), on the same device.
    """
    places = np.arange(first, first + len(images), dtype=np.uint64)
    for name in names:
        if (found := find_augmentation(name)) is None:
            images = AUGMENTATIONS[name](images, (seed, step), places)
        else:
            images = _by_extension(found, images, (seed, step), places)
    return images


def _by_extension(
    found: Extension, images: Tensor, key: tuple[int, int], places: NDArray[np.uint64]
) -> Tensor:
    owner = f"The augmentation {found.name!r} of {found.distribution} {found.version}"
    own = torch.from_numpy(places.astype(np.int64)).to(images.device)
    try:
        result = found.value(images, *key, own)
    except Exception as error:
        raise PluginError(f"{owner} fails on {tuple(images.shape)}: {describe(error)}") from error
    if not isinstance(result, Tensor) or (result.shape, result.dtype) != (images.shape, images.dtype):
        got = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise PluginError(
            f"{owner} gives {got}; expected {images.dtype} {tuple(images.shape)}, as it was given."
        )
    return result
