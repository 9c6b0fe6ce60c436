"""MNIST and Fashion-MNIST: idx files, in torchvision's layout, gzipped, or bundled with flowzoo."""

from __future__ import annotations

import math
import struct
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowzoo.data.api import Dataset
from flowzoo.data.digests import read_content
from flowzoo.errors import DataUnavailable, IntegrityError

__all__ = ["parse_idx_images", "read"]

_IMAGES_MAGIC = 0x00000803
_BUNDLED_TEST = "mnist-t10k-images-idx3-ubyte.gz"


def parse_idx_images(content: bytes, where: Path) -> Tensor:
    """Reads the content of an idx3-ubyte file.

    Args:
        content: The file's bytes, not compressed.
        where: The file, for the error.

    Returns:
        uint8 (N, 1, H, W).

    Raises:
        IntegrityError: if it is not an idx file of uint8 images, or not complete.
    """
    if len(content) < 16:
        raise IntegrityError(
            f"{where} has {len(content)} bytes, too few for the 16-byte header of an idx image file."
        )
    magic, *shape = struct.unpack(">IIII", content[:16])
    if magic != _IMAGES_MAGIC or len(content) - 16 != math.prod(shape):
        raise IntegrityError(
            f"{where} is not a complete idx image file: magic {magic:#010x}, shape {tuple(shape)}, "
            f"{len(content) - 16} bytes of pixels; expected magic {_IMAGES_MAGIC:#010x} and "
            f"{math.prod(shape)} bytes."
        )
    count, height, width = shape
    pixels = np.frombuffer(content, dtype=np.uint8, offset=16).reshape(count, 1, height, width)
    return torch.from_numpy(pixels.copy())


def read(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor:
    """Reads a split; ``valid`` is the last ``dataset.options["valid"]`` images of the training file.

    Returns:
        uint8 (N, 1, 28, 28).
    """
    if not paths:
        bundled = resources.files("flowzoo.data") / "bundled" / _BUNDLED_TEST
        with resources.as_file(bundled) as path:
            return parse_idx_images(read_content(path), path)
    images = (
        parse_idx_images(read_content(paths[0]), paths[0])
        if paths[0].suffix == ".gz"
        else _read_with_torchvision(dataset, split, paths[0])
    )
    held_out = int(dataset.options["valid"])
    if split == "test":
        return images
    return images[-held_out:] if split == "valid" else images[:-held_out]


def _read_with_torchvision(dataset: Dataset, split: str, path: Path) -> Tensor:
    """Reads files in torchvision's layout ROOT/<class name>/raw/ with the torchvision class of that name."""
    from torchvision import datasets

    root = path.parents[2]
    try:
        found = getattr(datasets, path.parents[1].name)(str(root), train=split != "test", download=False)
    except (RuntimeError, OSError) as error:
        raise DataUnavailable(
            f"torchvision cannot read {dataset.id!r} under {root}: {error}. How to get it: "
            f"{dataset.hint(root)}"
        ) from error
    images: Tensor = found.data
    return images[:, None]
