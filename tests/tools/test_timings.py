"""What is measured of a model beside its figure."""

from __future__ import annotations

import pytest

import flowzoo
from flowzoo.testing import random_images, randomize
from tools.timings import round_trip


@pytest.mark.parametrize("name", ["nice-tiny", "fvae-tiny"])
def test_a_round_trip_closes_with_and_without_augmentation(name: str) -> None:
    flow = flowzoo.create(name)
    flow.initialize(random_images(flow, 64, seed=0))
    randomize(flow.eval(), seed=1, scale=0.03)
    found = round_trip(flow, random_images(flow, 8, seed=2))
    assert found["float64"] < 1e-9 < found["float32"] < 0.01
