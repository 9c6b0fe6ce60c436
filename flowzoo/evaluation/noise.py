"""Noise of evaluations and trainings.

Evaluation noise is keyed by (seed, image index, sample index); see :mod:`flowzoo.nets.keyed`. Training noise is keyed
by (seed, step) and made by torch on the device, where speed matters more.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from flowzoo.densities.dequantization import NoiseKind
from flowzoo.nets.keyed import EVALUATION_KEY, MAX_SEED, check_seed, keyed_noise

__all__ = [
    "EVALUATION_KEY",
    "MAX_SEED",
    "NoiseKind",
    "check_seed",
    "derive_seed",
    "keyed_generator",
    "keyed_noise",
    "training_noise",
]


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
    if kind == "none":
        return torch.zeros(shape, device=device)
    generator = keyed_generator(device, seed, step, "noise")
    draw = torch.rand if kind == "uniform" else torch.randn
    return draw(shape, generator=generator, device=device)
