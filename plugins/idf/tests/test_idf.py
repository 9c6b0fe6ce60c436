"""Integer discrete flows: probabilities of integers, the couplings, training, and the integer form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flowzoo_idf.config import IDFConfig
from flowzoo_idf.layers import IntegerDiscreteFlow
from flowzoo_idf.mixture import IntegerMixture
from flowzoo_idf.model import build
from flowzoo_idf.plugin import ARCHITECTURE
from flowzoo_idf.relative import nearest_sum

from flowzoo.bijectors import Squeeze
from flowzoo.codec import integer_model
from flowzoo.codec.coder import Weigher
from flowzoo.config import config_to_dict, parse_config
from flowzoo.errors import ConfigError
from flowzoo.flow import Flow
from flowzoo.testing import conformance_suite
from flowzoo.testing.randomize import random_images, randomize

test_conformance = conformance_suite("idf")

TINY = dict(ARCHITECTURE.presets["tiny"].config)
VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "couplings": {"couplings": 3, "levels": 2},
    "quarters": {"split": "quarter", "couplings": 2, "levels": 2},
    "relative": {"split": "quarter", "means": "relative", "levels": 2, "mixtures": 3},
    "relative, grey, 5 bits": {
        "image_shape": (1, 8, 8),
        "split": "quarter",
        "means": "relative",
        "couplings": 1,
        "n_bits": 5,
    },
    "one grey channel": {"image_shape": (1, 8, 8), "levels": 1, "couplings": 1, "n_bits": 5},
}


def config(**overrides: Any) -> IDFConfig:
    return parse_config(IDFConfig, {**TINY, **overrides}, "test")


def randomized(seed: int = 0, **overrides: Any) -> Flow:
    """A model with random parameters, in float64, whose couplings move integers by several grey levels."""
    torch.manual_seed(seed)
    flow = randomize(build(config(**overrides)).double().eval(), seed)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "couplings" in name and ".last." in name:
                parameter.mul_(30)
    return flow


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_image_is_reconstructed_and_the_density_is_flat_in_each_bin(variant: str) -> None:
    flow = randomized(**VARIANTS[variant])
    x = random_images(flow, 6, seed=1)
    assert torch.equal(flow.reconstruct(x), x)
    levels = (x >> (8 - flow.n_bits)).double()
    places = [(levels + u) / 2**flow.n_bits for u in (0.01, 0.5, 0.99)]
    densities = torch.stack([flow.log_density(v) for v in places])
    torch.testing.assert_close(densities, densities[:1].expand_as(densities), rtol=0, atol=1e-7)


def test_couplings_move_integers_by_integers_and_wrap() -> None:
    flow = randomized(couplings=3, split="quarter")
    assert isinstance(flow.bijector, IntegerDiscreteFlow)
    split = flow.bijector.splits(flow.bijector.levels[0])[0]
    x = torch.randint(0, 256, (4, split.kept + split.out, 4, 4), dtype=torch.float64)
    kept, out = split.translate(x + 0.25)
    moved = torch.cat((kept, out), dim=1) - 0.25
    assert torch.equal(moved, moved.round())
    assert moved.min() >= 0
    assert moved.max() < 256
    assert (moved != x).double().mean() > 0.3
    assert torch.equal(split.translate_back(kept, out), x + 0.25)


def test_a_mixtures_probabilities_sum_to_one_and_none_is_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(3, 4, 50, generator=generator, dtype=torch.float64)
    mixture = IntegerMixture(raw[0], 16 + 40 * raw[1], 3 * raw[2], 32)
    log_probs = torch.stack([mixture.log_prob(torch.full((50,), float(k)).double()) for k in range(32)])
    total = log_probs.exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)
    assert torch.isfinite(log_probs).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_nearest_pixels_that_stay_are_those_of_the_image(channels: int) -> None:
    image = torch.randint(0, 256, (2, channels, 8, 6), generator=torch.Generator().manual_seed(0))
    blocks = Squeeze("checkerboard")(image.double())[0].long()
    # A pixel and the offsets of its nearest: below and beside it, or diagonal where only one of four stays.
    straight, diagonal = [(-1, 0), (1, 0), (0, -1), (0, 1)], [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    for stay, (row, column), offsets in ((3, (1, 0), straight), (2, (0, 1), straight), (1, (1, 1), diagonal)):
        found = nearest_sum(blocks[:, : stay * channels], channels)
        for i, j in ((1, 1), (2, 1), (1, 0 if column else 1)):
            y, x = 2 * i + row, 2 * j + column
            expected = sum(image[:, :, y + dy, x + dx] for dy, dx in offsets)
            assert torch.equal(found[:, :, i, j], expected)


def test_a_channel_depends_on_those_before_it_and_not_on_those_after() -> None:
    flow = randomized(split="quarter", means="relative")
    assert isinstance(flow.bijector, IntegerDiscreteFlow)
    split = flow.bijector.splits(flow.bijector.levels[0])[0]
    kept = torch.randint(0, 256, (2, split.kept, 4, 4)).double()
    out = torch.randint(0, 256, (2, 3, 4, 4)).double()
    before = split.distribution(kept, out).means
    for channel in range(3):
        changed = out.clone()
        changed[:, channel] += 9
        moved = (split.distribution(kept, changed).means != before).any(0).flatten(2).any(2).any(0)
        assert moved.tolist() == [other > channel for other in range(3)]


def test_training_passes_gradients_through_rounding_and_lowers_the_loss() -> None:
    torch.manual_seed(0)
    flow = build(config(couplings=2)).train()
    x = random_images(flow, 16, seed=0) // 4
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = flow.nats_to_bits(flow(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in flow.parameters())
    assert losses[-1] < losses[0] - 0.3


def test_train_and_eval_mode_give_the_same_probabilities() -> None:
    flow = randomized(couplings=2)
    x = random_images(flow, 3, seed=0)
    torch.testing.assert_close(flow.train().log_prob(x), flow.eval().log_prob(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_integer_form_gives_the_bits_of_the_float_form(variant: str) -> None:
    """Without couplings to the tables' precision; a coupling may round to the other neighbour here and there."""
    flow = randomized(**VARIANTS[variant])
    x = random_images(flow, 8, seed=2)
    weigher = Weigher()
    integer_model(flow).encode((x >> (8 - flow.n_bits)).long(), weigher.write)
    expected = float(flow.bits_per_dim(x).mean())
    assert (
        abs(weigher.bits / x.numel() - expected)
        < (0.02 if VARIANTS[variant].get("couplings") else 1e-3) * expected
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"levels": 4}, "squeezed 4 times"),
        ({"features": 0}, "features"),
        ({"couplings": -1}, "couplings"),
        ({"n_bits": 9}, "n_bits"),
        ({"means": "relative"}, "quarter"),
        ({"image_shape": (0, 8, 8)}, "image_shape"),
    ],
)
def test_impossible_configs_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**overrides)


def test_config_survives_a_round_trip() -> None:
    before = config(split="quarter")
    assert parse_config(IDFConfig, config_to_dict(before), "test") == before
