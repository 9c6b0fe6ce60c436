"""PixelCNN flows: the conformance kit, the discrete model that they are, and evaluation pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from flowzoo_pixelcnn.levels import GreyLevels, HistogramLevels, LogisticLevels, parameters_per_pixel
from flowzoo_pixelcnn.networks import Incremental, PixelCNN

import flowzoo
from flowzoo.errors import ConfigError
from flowzoo.testing import conformance_suite, random_images, randomize

test_conformance = conformance_suite("pixelcnn")

VARIANTS = [{"image_shape": (1, 4, 5), "n_bits": 3}, {"image_shape": (3, 4, 5), "conditional": "logistics"}]


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_the_noise_does_not_matter(fields: dict[str, object]) -> None:
    flow = randomize(flowzoo.create("pixelcnn-tiny", **fields).double(), seed=1)
    x = random_images(flow, 20, seed=0)
    first, second = (flow.log_prob(x, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("channels", [0, 1, 3], ids=["histogram", "grey", "colour"])
def test_probabilities_of_levels_sum_to_one_and_add_up_to_those_below(channels: int) -> None:
    torch.manual_seed(0)
    levels: GreyLevels
    if channels:
        raw = 3 * torch.randn(7, 1, parameters_per_pixel(channels, 4), dtype=torch.float64)
        levels = LogisticLevels(raw, channels, 16, 1e-3)
    else:
        channels = 1
        levels = HistogramLevels(9 * torch.randn(7, 1, 16, dtype=torch.float64).expand(7, 16, 16), 1e-3)
    before = torch.randint(0, 16, (7, 1, channels)).double().expand(7, 16, channels)
    for c in range(channels):
        given = torch.cat(
            (before[..., :c], torch.arange(16.0).expand(7, 16)[..., None], before[..., c + 1 :]), -1
        )
        log_p, below = (found[..., c] for found in levels.of(given))
        assert log_p.exp().min() > 0.999 * 1e-3 / 16
        torch.testing.assert_close(log_p.exp().cumsum(1)[:, :-1], below[:, 1:])
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(7, dtype=torch.float64))
        assert below[:, 0].abs().max() < 1e-3


def test_nothing_is_seen_of_a_pixel_and_those_after_it() -> None:
    torch.manual_seed(0)
    net = PixelCNN(2, 6, (1, 2), 5, 0.0).double()
    randomize(net, seed=1)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    full = net(x).flatten(2)
    for place in (0, 7, 17, 29):
        changed = x.flatten(2).clone()
        changed[..., place:] = torch.randn(1, 2, 30 - place, dtype=torch.float64)
        again = net(changed.unflatten(2, (5, 6))).flatten(2)
        assert torch.equal(again[..., : place + 1], full[..., : place + 1])
        if place < 29:
            assert not torch.equal(again[..., place + 1 :], full[..., place + 1 :])


def test_histograms_begin_with_the_shares_of_all_levels() -> None:
    flow = flowzoo.create("pixelcnn-tiny", n_bits=2).double()
    x = random_images(flow, 40, seed=0) & random_images(flow, 40, seed=1)
    flow.initialize(x)
    shares = (torch.bincount((x >> 6).flatten(), minlength=4) + 1).double()
    p = 0.9997 * shares / shares.sum() + 3e-4 / 4
    expected = -(p.log2()[(x >> 6).long()]).mean()
    torch.testing.assert_close(flow.bits_per_dim(x, seed=0).mean(), expected)


def test_pixel_by_pixel_is_the_network() -> None:
    net = randomize(PixelCNN(2, 6, (1, 3), 5, 0.0).double(), seed=1)
    x = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    state = Incremental(net, (3, 2, 4, 5))
    with torch.no_grad():
        full = net(x)
        for row in range(4):
            for column in range(5):
                torch.testing.assert_close(state.parameters(row, column), full[:, :, row, column])
                state.add(row, column, x[:, :, row, column])


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_images_come_back_exactly(fields: dict[str, object]) -> None:
    flow = randomize(flowzoo.create("pixelcnn-tiny", **fields), seed=2).eval()
    x = random_images(flow, 30, seed=0)
    assert torch.equal(flow.decode(flow.encode(x)), x)


@pytest.mark.parametrize(
    "fields",
    [
        {"floor": 0.0},
        {"floor": 1.0},
        {"dilations": ()},
        {"dilations": (0,)},
        {"components": 0},
        {"dropout": 1.0},
    ],
)
def test_what_cannot_be_built_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"pixelcnn: .*(expected|conditional = logistics)"):
        flowzoo.create("pixelcnn-tiny", **fields)
