"""Random numbers that are functions of their key, so that nothing else can change them.

Evaluation noise is keyed by (seed, image index, sample index) and made by Philox4x64-10, a counter-based
generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), with integer
arithmetic: the same bits on every machine, for every batch size, order and number of processes.
Training noise is keyed by (seed, step) and made by torch on the device, where speed matters more.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from flowzoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

NoiseKind = Literal["uniform", "normal"]

EVALUATION_KEY = 0x666C6F777A6F6F  # "flowzoo"

MAX_SEED = (1 << 64) - 1
"""The largest seed, of an evaluation, a training or torch's generators."""


def check_seed(seed: int) -> int:
    """Returns a seed that is one.

    Raises:
        InputError: It is below 0 or above 2^64 - 1, where it would stand for another one, or for none.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"The seed {seed:.6g} is out of range; give one from 0 to 2^64 - 1.")
    return seed


def keyed_noise(
    kind: NoiseKind,
    shape: tuple[int, ...],
    seed: int,
    indices: Iterable[int],
    sample: int,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard noise for images, keyed by (seed, image index, sample index).

    Args:
        kind: ``uniform`` on [0, 1) in steps of 2^-24, exact in float32; or ``normal`` by the inverse
            distribution function in float64.
        shape: Of one image.
        seed: Seed of the evaluation, 0 to 2^64 - 1.
        indices: Position of each image in its split.
        sample: Which of the noise samples of each image, counted from 0.
        dtype: Of the result; the same numbers, rounded.

    Returns:
        Noise ``(B, *shape)`` on the CPU.

    Raises:
        InputError: The seed is out of range.
    """
    check_seed(seed)
    size = int(np.prod(shape))
    rows = [_bits(seed, int(index), sample, size) for index in indices]
    bits = np.stack(rows) if rows else np.empty((0, size), np.uint64)
    if kind == "uniform":
        values = torch.from_numpy((bits >> np.uint64(40)).astype(np.float64) * 2.0**-24)
    else:
        centres = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        values = torch.special.ndtri(torch.from_numpy(centres))
    return values.to(dtype).reshape(len(rows), *shape)


def _bits(seed: int, index: int, sample: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """64 random bits for each of ``size`` numbers: key (constant, seed), counter (.., sample, index)."""
    mask = (1 << 64) - 1
    key = np.array([EVALUATION_KEY, seed], dtype=np.uint64)
    counter = np.array([0, 0, sample & mask, index & mask], dtype=np.uint64)
    generator = np.random.Philox(key=key, counter=counter)
    # raw bits are the generator's own stream: numpy's distributions may change, these may not.
    return np.asarray(generator.random_raw(size), dtype=np.uint64)


def derive_seed(*key: int | str) -> int:
    """A seed for torch, 0 to 2^63 - 1, from a key of integers and names."""
    text = "/".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def keyed_generator(device: torch.device | str, *key: int | str) -> torch.Generator:
    """A torch generator on a device, seeded by a key."""
    return torch.Generator(device=device).manual_seed(derive_seed(*key))


def training_noise(
    kind: NoiseKind, shape: tuple[int, ...], seed: int, step: int, device: torch.device | str
) -> Tensor:
    """Standard noise ``shape`` (batch first) for the joint batch of a training step, on the device."""
    generator = keyed_generator(device, seed, step, "noise")
    draw = torch.rand if kind == "uniform" else torch.randn
    return draw(shape, generator=generator, device=device)
