"""Small files in the formats of the data sets, for the tests of the readers."""

from __future__ import annotations

import dataclasses
import gzip
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flowzoo.data import SPLITS, Dataset, get_dataset

Pixels = NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def small(name: str, **options: Any) -> Dataset:
    """A built-in data set without the official sizes and digests, for small files in its formats."""
    dataset = get_dataset(name)
    splits = {
        key: dataclasses.replace(split, size=None, sha256=None) for key, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits, md5={}, options={**dataset.options, **options})


def write_idx(path: Path, array: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content += array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path) -> tuple[Pixels, Pixels]:
    train, test = noise(7, 28, 28), noise(4, 28, 28, seed=1)
    for name, images in (("train", train), ("t10k", test)):
        write_idx(folder / f"{name}-images-idx3-ubyte", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte", np.zeros(len(images), dtype=np.uint8))
    return train, test


def write_celeba(root: Path) -> dict[str, list[Path]]:
    folder, lines = root / "celeba" / "img_align_celeba", []
    folder.mkdir(parents=True)
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for number in range(1, 8):
        path, part = folder / f"{number:06d}.jpg", number % 3
        Image.fromarray(noise(218, 178, 3, seed=number)).save(path, quality=95)
        files[SPLITS[part]].append(path)
        lines.append(f"{path.name} {part}")
    (root / "celeba" / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return files


class Hostile:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)
