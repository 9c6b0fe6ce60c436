"""MNIST and Fashion-MNIST: idx files, in torchvision's layout, gzipped, or bundled with flowzoo."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowzoo.data.api import Dataset
from flowzoo.data.digests import read_content
from flowzoo.errors import DataUnavailable, IntegrityError

__all__ = ["parse_idx_images", "parse_idx_labels", "read"]

_IMAGES_MAGIC = 0x00000803
_LABELS_MAGIC = 0x00000801
_BUNDLED_TEST = ("mnist-t10k-images-idx3-ubyte.gz", "mnist-t10k-labels-idx1-ubyte.gz")


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


def parse_idx_labels(content: bytes, where: Path) -> Tensor:
    """Reads the content of an idx1-ubyte file: labels, uint8 (N,).

    Args:
        content: The file's bytes, not compressed.
        where: The file, for the error.

    Raises:
        IntegrityError: if it is not an idx file of labels, or not complete.
    """
    magic, count = struct.unpack(">II", content[:8]) if len(content) >= 8 else (0, 0)
    if magic != _LABELS_MAGIC or len(content) - 8 != count:
        raise IntegrityError(
            f"{where} is not a complete idx file of labels: magic {magic:#010x}, {count} labels, {len(content)} bytes; "
            f"expected magic {_LABELS_MAGIC:#010x} and {count + 8} bytes. Get it again."
        )
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=8).copy())


def read(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> tuple[Tensor, Tensor | None]:
    """Reads a split; ``valid`` is the last ``dataset.options["valid"]`` images of the training file.

    Returns:
        Images, uint8 (N, 1, 28, 28), and labels, (N,); None where only the images' file is there.
    """
    if not paths:
        folder = resources.files("flowzoo.data") / "bundled"
        with contextlib.ExitStack() as files:
            return _read_files(
                [files.enter_context(resources.as_file(folder / name)) for name in _BUNDLED_TEST]
            )
    if paths[0].suffix == ".gz":
        images, labels = _read_files(paths)
    else:
        images, labels = _read_with_torchvision(dataset, split, paths[0])
    if split == "test":
        return images, labels
    held_out = int(dataset.options["valid"])
    part = slice(-held_out, None) if split == "valid" else slice(-held_out)
    return images[part], None if labels is None else labels[part]


def _read_files(paths: Sequence[Path]) -> tuple[Tensor, Tensor | None]:
    """Reads a file of images and, if there is a second one, the one of their labels."""
    images, *labels = paths
    found = parse_idx_labels(read_content(labels[0]), labels[0]) if labels else None
    return parse_idx_images(read_content(images), images), found


def _read_with_torchvision(dataset: Dataset, split: str, path: Path) -> tuple[Tensor, Tensor]:
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
    return found.data[:, None], found.targets
