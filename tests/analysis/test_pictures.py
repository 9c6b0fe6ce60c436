"""Grids and curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from flowzoo.analysis.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, save_curve, ticks
from flowzoo.analysis.grids import grid, save_grid
from flowzoo.errors import InputError
from tests.trainings import made_up_images

if TYPE_CHECKING:
    from pathlib import Path
from typing import Any


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 6)])
def test_every_image_is_in_the_grid_once_and_unchanged(shape: tuple[int, int, int]) -> None:
    images = made_up_images(7, shape)
    canvas = grid(images, columns=3, border=1)
    channels, height, width = shape
    assert canvas.shape == (3 * (height + 1) + 1, 3 * (width + 1) + 1, channels)
    for i, image in enumerate(images):
        top, left = 1 + i // 3 * (height + 1), 1 + i % 3 * (width + 1)
        assert torch.equal(canvas[top : top + height, left : left + width].permute(2, 0, 1), image)


def test_a_grid_is_a_png(tmp_path: Path) -> None:
    images = made_up_images(4, (1, 8, 8))
    save_grid(images, tmp_path / "deep" / "grid.png", scale=1, border=0)
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "deep" / "grid.png"))[:8, :8], images[0, 0].numpy()
    )
    save_grid(images, tmp_path / "big.png")
    assert Image.open(tmp_path / "big.png").width > 8 * 8


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 1, 4, 4), torch.zeros(0, 1, 4, 4).byte(), torch.zeros(2, 2, 4, 4).byte()]
)
def test_what_cannot_be_shown_is_refused(images: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="uint8"):
        save_grid(images, tmp_path / "x.png")


def test_a_curve_is_drawn_whatever_the_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"kind": "header"}]
    save_curve(rows, tmp_path / "empty.png")
    rows += [{"kind": "train", "step": s, "images": 9 * s, "loss": 8 / s} for s in range(1, 50)]
    rows += [{"kind": "valid", "images": n, "bpd": bpd} for n, bpd in ((225, None), (450, 1.5))]
    save_curve(rows, tmp_path / "curve.png", title="run")
    empty, curve = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("empty", "curve"))
    assert (curve != empty).any()


def test_the_key_names_no_line_that_is_not_there(tmp_path: Path) -> None:
    valid: list[dict[str, Any]] = [{"kind": "valid", "images": n, "bpd": 4.0 / n} for n in (1, 2)]
    save_curve(valid, tmp_path / "alone.png")
    picture = np.asarray(Image.open(tmp_path / "alone.png").convert("RGB")).astype(int)
    blue = picture[..., 2] - picture[..., 0] > 40
    assert not blue.any(), "the colour of a training loss, of which there is none"


def test_a_line_stands_where_a_stage_begins(tmp_path: Path) -> None:
    valid: list[dict[str, Any]] = [{"kind": "valid", "images": n, "bpd": 4.0 / n} for n in (10, 20, 30, 40)]
    save_curve(valid, tmp_path / "one.png")
    save_curve([*valid[:2], {"kind": "stage", "images": 20}, *valid[2:]], tmp_path / "two.png")
    one, two = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("one", "two"))
    column = LEFT + (WIDTH - LEFT - RIGHT) // 2
    changed = (one != two).any(axis=2)
    assert changed[TOP + 30 : HEIGHT - BOTTOM, column].mean() > 0.9, "from top to bottom, at 20 of 40"
    assert not changed[:, : column - 1].any()
    assert not changed[TOP + 30 :, column + 1 :].any(), "thin"


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    found = ticks(1.013, 1.0742)
    assert all(1.013 <= tick <= 1.0742 for tick in found)
    assert 3 <= len(found) <= 8
