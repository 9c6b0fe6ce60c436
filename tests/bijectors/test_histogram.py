"""Flows behind histograms of their values begin at independent pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import flowzoo
from flowzoo.testing import random_images

UNTRAINED: dict[str, dict[str, Any]] = {
    "jet-tiny": {},
    "nice": {"init_range": 0.0, "hidden_layers": 1, "hidden_units": 4},
    "tarflow-tiny": {},
}
"""Models whose couplings begin as the identity."""


@pytest.mark.parametrize("name", UNTRAINED)
def test_untrained_the_bits_are_the_entropy_of_the_counted_pixels(name: str) -> None:
    flow = flowzoo.create(name, image_shape=(1, 4, 4), n_bits=2, marginals="histogram", **UNTRAINED[name])
    flow = flow.double()
    x = random_images(flow, 400, seed=3) & random_images(flow, 400, seed=4)
    flow.initialize(x)
    pixels = x.flatten(1) >> 6
    counts = torch.stack([torch.bincount(column.long(), minlength=4) for column in pixels.T]).double() + 0.2
    log_p = (counts / counts.sum(1, keepdim=True)).log2()
    expected = -log_p[torch.arange(16), pixels.long()].mean()
    assert abs(flow.bits_per_dim(x, seed=0).mean() - expected) < 1e-5
