"""A small model whose weights are in the repository, images for it, and hostile variants of a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from flowzoo.evaluation.trained_model import find_target
from flowzoo.flow import Flow

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_FILE = GOLDEN / "images.flz"


def golden_flow() -> Flow:
    """The model: two levels of quarter splits with two couplings each, random weights, 1x8x8 images."""
    return find_target(str(GOLDEN / "model")).flow


def golden_images(count: int = 96) -> Tensor:
    """Images by a formula, uint8 ``(N, 1, 8, 8)``: slopes, black and white ones, and noise that integers make."""
    n, i, j = torch.meshgrid(torch.arange(count), torch.arange(8), torch.arange(8), indexing="ij")
    slopes = (3 * n + 5 * i * (n % 7) + 11 * j) % 256
    noise = (n * 7919 + i * 104729 + j * 1299709 + (i * j * n) ** 2 * 31) % 257 % 256
    kind = n % 4
    chosen = torch.where(kind == 0, slopes, torch.where(kind == 1, noise, torch.where(kind == 2, 0, 255)))
    return chosen.to(torch.uint8)[:, None]


def random_images(count: int, seed: int) -> Tensor:
    """Uniformly random images, uint8 ``(N, 1, 8, 8)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
