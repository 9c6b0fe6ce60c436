"""Starting from a narrower model: the wider one computes the same and learns with its new units too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from flowzoo.config import config_to_dict
from flowzoo.errors import InputError, IntegrityError
from flowzoo.factory import create
from flowzoo.testing.randomize import randomize
from flowzoo.training.export import load_run
from flowzoo.training.run_dir import RunDir
from flowzoo.training.train import train
from flowzoo.training.warm_start import start_from
from flowzoo.weights.checkpoint import save_weights
from tests.trainings import image_set, save_images, tiny_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from flowzoo.flow import Flow

PLAIN = {"network": "conv", "network_batch_norm": False}


def saved(flow: Flow, path: Path) -> Path:
    assert flow.config is not None
    save_weights(flow, path, {"architecture": flow.architecture, "config": config_to_dict(flow.config)})
    return path


@pytest.mark.parametrize(
    ("name", "narrow", "wide"),
    [
        ("glow-tiny", {"hidden_channels": 8}, {"hidden_channels": 20}),
        ("realnvp-tiny", PLAIN | {"features": 4}, PLAIN | {"features": 9}),
    ],
)
def test_the_wider_model_computes_the_same_and_all_of_it_learns(
    name: str, narrow: dict[str, object], wide: dict[str, object], tmp_path: Path
) -> None:
    small, large = randomize(create(name, **narrow), 1), create(name, **wide)
    images = image_set(40, small.image_shape)
    start_from(large, saved(small, tmp_path / "weights.safetensors"), images)
    assert large.training
    small.eval().double()
    large.eval().double()
    x = images.images
    noise = small.draw_noise(len(x)).double()
    torch.testing.assert_close(large.log_prob(x, noise=noise), small.log_prob(x, noise=noise))
    before = [parameter.detach().clone() for parameter in large.parameters()]
    optimizer = torch.optim.SGD(large.parameters(), lr=1e-6)
    for _ in range(2):  # A new unit has no gradient until something listens to it.
        optimizer.zero_grad()
        large.log_prob(x, noise=noise).mean().backward()
        optimizer.step()
    still = [n for (n, p), old in zip(large.named_parameters(), before, strict=True) if torch.equal(p, old)]
    assert still == []


def test_layers_that_mix_all_their_channels_are_refused(tmp_path: Path) -> None:
    small, large = (create("flowpp-tiny", filters=filters) for filters in (8, 16))
    path = saved(randomize(small, 1), tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="train the wider model from the start"):
        start_from(large, path, image_set(20, small.image_shape))


@pytest.mark.parametrize("config", [{"depth": 3}, {"hidden_channels": 4}])
def test_a_model_that_is_not_just_narrower_is_refused(config: dict[str, int], tmp_path: Path) -> None:
    small, other = (
        create("glow-tiny", hidden_channels=8),
        create("glow-tiny", **{"hidden_channels": 8} | config),
    )
    path = saved(randomize(small, 1), tmp_path / "weights.safetensors")
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(IntegrityError, match="not a usable weights file"):
        start_from(other, path, image_set(20, small.image_shape))
    torch.testing.assert_close(other.state_dict(), before)


def test_a_run_starts_from_a_narrower_one(tmp_path: Path) -> None:
    dataset = save_images(tmp_path / "images.npy")
    narrow = tiny_recipe("glow-tiny", dataset, "model.hidden_channels=8")
    wide = tiny_recipe("glow-tiny", dataset, "model.hidden_channels=16", "optimizer.lr=1e-9")
    train(narrow, tmp_path / "narrow", device="cpu", progress=False)
    train(wide, tmp_path / "wide", device="cpu", progress=False, init_from=tmp_path / "narrow")
    assert load_run(tmp_path / "wide").config.hidden_channels == 16
    best = min(row["bpd"] for row in RunDir(tmp_path / "narrow").rows() if row["kind"] == "valid")
    valid = [row["bpd"] for row in RunDir(tmp_path / "wide").rows() if row["kind"] == "valid"]
    assert valid == pytest.approx([best] * len(valid), abs=1e-4)


def test_other_images_are_no_obstacle_to_equal_tensors_but_to_wider_ones(tmp_path: Path) -> None:
    small = randomize(create("glow-tiny", hidden_channels=8), 1)
    path = saved(small, tmp_path / "weights.safetensors")
    for other in ({"n_bits": 5}, {"image_shape": (3, 16, 16)}):
        same = create("glow-tiny", hidden_channels=8, **other)
        start_from(same, path, image_set(20, same.image_shape))
        torch.testing.assert_close(same.state_dict(), small.state_dict())
        wide = create("glow-tiny", hidden_channels=12, **other)
        with pytest.raises(InputError, match="only one of the same images"):
            start_from(wide, path, image_set(20, wide.image_shape))
