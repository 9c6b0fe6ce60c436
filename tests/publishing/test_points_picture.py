"""The picture of a vector model's samples: a histogram that shows where they are."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from flowzoo.publishing.points_picture import histogram, save_points


def test_it_is_dark_where_points_are_and_the_second_coordinate_goes_up() -> None:
    torch.manual_seed(0)
    corner = torch.tensor([[1.0, 1.0]]).repeat(500, 1) + 0.01 * torch.randn(500, 2)
    spread = torch.rand(2000, 2) * 2 - 1
    picture = histogram(torch.cat([corner, spread]), 16)
    assert picture.shape == (16, 16) and picture.dtype == torch.uint8
    top_right, bottom_left = picture[:3, -3:].min(), picture[-3:, :3].min()
    assert int(top_right) < int(bottom_left)


def test_one_coordinate_is_bars_and_more_than_two_are_cut() -> None:
    torch.manual_seed(0)
    bars = histogram(torch.randn(5000, 1), 32)
    heights = (bars == 0).sum(0)
    assert int(heights[12:20].min()) > int(heights[[0, -1]].max())
    assert bars[-1].float().mean() < bars[0].float().mean(), "bars stand on the ground"
    assert histogram(torch.randn(100, 5), 8).shape == (8, 8)


def test_points_without_extent_and_outliers_are_shown() -> None:
    assert histogram(torch.zeros(10, 2), 8).shape == (8, 8)
    outlier = torch.cat([torch.randn(1000, 2), torch.tensor([[1e6, -1e6]])])
    assert int((histogram(outlier, 16) < 255).sum()) > 50


def test_the_file_is_a_picture_that_states_its_temperature(tmp_path: Path) -> None:
    save_points(torch.randn(100, 2), tmp_path / "s.png", temperature=0.5)
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size == (384, 384) and picture.info["temperature"] == "0.5"
