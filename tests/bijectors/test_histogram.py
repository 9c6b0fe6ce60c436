"""Flows behind histograms of their values begin at independent pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import flowzoo
from flowzoo.testing import random_images

UNTRAINED: dict[str, dict[str, Any]] = {
    "jet-tiny": {},
    "maf": {"hidden": (4,), "normalization": "none", "base": "logistic"},
    "nice": {"init_range": 0.0, "hidden_layers": 1, "hidden_units": 4},
    "tarflow-tiny": {},
}
"""Models whose layers begin as the identity."""

NEARLY: dict[str, dict[str, Any]] = {
    "ffjord": {"scales": 2, "blocks": 1, "hidden": (4,), "steps": 2},
    "naf": {"features": 4, "steps": 1},
    "residual": {"blocks": (1,), "channels": 4, "fc_blocks": 0},
}
"""Models whose layers begin near it, or bring each value to mean 0 and variance 1."""


@pytest.mark.parametrize("name", UNTRAINED)
def test_untrained_the_bits_are_the_entropy_of_the_counted_pixels(name: str) -> None:
    found, expected = bits(name, **UNTRAINED[name])
    assert abs(found - expected) < 1e-5


@pytest.mark.parametrize("name", NEARLY)
def test_others_begin_close_by(name: str) -> None:
    found, expected = bits(name, **NEARLY[name])
    assert abs(found - expected) < 0.08
    assert bits(name, "none", **NEARLY[name])[0] > expected + 0.08, "the logit begins further away"


def bits(name: str, marginals: str = "histogram", **config: Any) -> tuple[float, float]:
    """Bits per dimension of an untrained model on the images that it was initialised on, and their pixels' entropy."""
    torch.manual_seed(0)
    flow = flowzoo.create(name, image_shape=(1, 4, 4), n_bits=2, marginals=marginals, **config)
    flow = flow.double()
    x = torch.stack([random_images(flow, 400, seed=seed) for seed in range(4)]).amin(0)
    flow.initialize(x)
    pixels = x.flatten(1) >> 6
    counts = torch.stack([torch.bincount(column.long(), minlength=4) for column in pixels.T]).double() + 0.2
    log_p = (counts / counts.sum(1, keepdim=True)).log2()
    expected = -log_p[torch.arange(16), pixels.long()].mean()
    return float(flow.bits_per_dim(x, seed=0).mean()), float(expected)
