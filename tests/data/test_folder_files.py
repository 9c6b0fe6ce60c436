"""Files of a folder: pixels of other depths, transparency, links and hidden names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowzoo.data import get_dataset
from flowzoo.errors import IntegrityError


def read(folder: Path, channels: int = 1) -> torch.Tensor:
    images = get_dataset(f"folder:{folder}?size=4&split=all&channels={channels}").load("train").images
    return images if isinstance(images, torch.Tensor) else images.batch(torch.arange(images.shape[0]))


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    levels = np.arange(16, dtype=np.uint16).reshape(4, 4) * 17
    Image.fromarray(levels * 257).save(tmp_path / f"a.{suffix}")
    assert torch.equal(read(tmp_path)[0, 0], torch.from_numpy(levels.astype(np.uint8)))


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(IntegrityError, match="no known range"):
        read(tmp_path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white_whatever_colour_they_hide(tmp_path: Path, mode: str) -> None:
    hidden = Image.new(mode, (4, 4), (10, 20, 30, 0) if mode == "RGBA" else (10, 0))
    hidden.save(tmp_path / "a.png")
    assert bool((read(tmp_path, channels=3) == 255).all())


def test_each_real_file_counts_once_and_hidden_ones_never(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    picture = Image.new("L", (4, 4), 100)
    for name in ("inside/a.png", "._a.png", ".ipynb_checkpoints/a.png"):
        picture.save(tmp_path / name)
    (tmp_path / "inside" / "up").symlink_to(tmp_path)
    (tmp_path / "again.png").symlink_to(tmp_path / "inside" / "a.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "missing.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert len(read(tmp_path)) == 1
