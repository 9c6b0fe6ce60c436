"""Small trainings on small made-up images, for the harness's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowzoo.data import SPLITS, ImageSet
from flowzoo.data.splitting import split_of
from flowzoo.distributed import World
from flowzoo.training.recipe import Recipe, parse_recipe

if TYPE_CHECKING:
    from pathlib import Path

CPU = World(0, 1, torch.device("cpu"))


def made_up_images(count: int, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> torch.Tensor:
    """Smooth blobs on a dark ground: uint8 ``(count, C, H, W)`` that a flow can learn something of."""
    generator = np.random.default_rng(seed)
    channels, height, width = shape
    y, x = np.mgrid[0:height, 0:width]
    centre = generator.uniform(0, 1, (count, 2, 1, 1)) * np.array([height, width]).reshape(1, 2, 1, 1)
    blob = np.exp(-((y - centre[:, :1]) ** 2 + (x - centre[:, 1:]) ** 2) / (0.1 * height * width))
    noise = generator.uniform(0, 20, (count, channels, height, width))
    return torch.from_numpy((200 * blob + noise).clip(0, 255).astype(np.uint8))


def image_set(count: int, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> ImageSet:
    """Made-up images as a set."""
    return ImageSet(made_up_images(count, shape, seed), id="made-up", split="train")


def save_images(path: Path, count: int = 200, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> str:
    """Writes made-up images of which 8 in 10 fall into train, 1 into valid and 1 into test; returns the set's id."""
    by_split: dict[str, list[torch.Tensor]] = {split: [] for split in SPLITS}
    for image in made_up_images(4 * count + 40, shape, seed):
        by_split[split_of(image.numpy().data)].append(image)
    wanted = ("train",) * 8 + ("valid", "test")
    chosen = [by_split[wanted[number % 10]].pop(0) for number in range(count)]
    np.save(path, torch.stack(chosen).numpy())
    return f"numpy:{path}"


def tiny_recipe(name: str = "glow-tiny", dataset: str = "made-up", *sets: str, **train: Any) -> Recipe:
    """A recipe that takes seconds: images 1x8x8, warm-up, cosine, clipping, averaging."""
    settings = {
        "steps": 12,
        "batch_size": 16,
        "init_images": 32,
        "clip_norm": 1.0,
        "ema": 0.9,
        "log_every": 4,
        "validate_every": 6,
        "samples": 4,
    }
    data = {
        "schema": 1,
        "name": name,
        "model": {"image_shape": [1, 8, 8]},
        "data": {"dataset": dataset},
        "train": settings | train,
        "schedule": [{"kind": "linear", "steps": 4}, {"kind": "cosine"}],
    }
    return parse_recipe(data, "tiny", sets)
