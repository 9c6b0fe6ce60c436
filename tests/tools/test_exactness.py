"""Items that do not come back: which of them were lost to float32's rounding."""

from __future__ import annotations

import json

import pytest
import torch

import flowzoo
from flowzoo.bijectors import HistogramCDF
from flowzoo.manifest.read import parse
from flowzoo.testing import random_images, randomize
from tools.exactness import FILE, ROOT, exactness


def test_what_float32_loses_comes_back_in_float64() -> None:
    flow = flowzoo.create("cdf", image_shape=(1, 2, 2), bins=256).eval()
    (histogram,) = (part for part in flow.modules() if isinstance(part, HistogramCDF))
    images = random_images(flow, 16, seed=0)
    with torch.no_grad():
        # So rare that its bin is narrower than float32's spacing near one.
        histogram.logits[:, 200:] = -20.0
    found = exactness(flow, images, batch=5)
    assert found["items"] == 16
    assert 0 < found["float32"] < 16, "some images have only frequent levels, some a rare one"
    assert found["float32"] + found["float64"] == 16


@pytest.mark.parametrize("name", ["nice-tiny", "fvae-tiny", "maf-moons"])
def test_a_well_behaved_flow_gives_everything_back(name: str) -> None:
    flow = flowzoo.create(name)
    items = random_images(flow, 8, seed=2) if flow.data_kind == "images" else torch.randn(8, 2)
    if flow.data_kind == "images":
        flow.initialize(random_images(flow, 64, seed=0))
    randomize(flow.eval(), seed=1, scale=0.03)
    assert exactness(flow, items) == {"items": 8, "float32": 8, "float64": 0}


def test_every_model_that_loses_items_was_looked_at() -> None:
    """Each of the others was lost to rounding: float64 gives it back."""
    known = json.loads(FILE.read_text(encoding="utf-8"))
    manifest = parse((ROOT / "weights_manifest.json").read_text(encoding="utf-8"), "weights_manifest.json")
    for entry in manifest.entries:
        if entry.measured is None or entry.weights is None:
            continue
        if entry.measured.reconstruction_exact != entry.measured.num_images:
            assert known[entry.key]["sha256"] == entry.weights.sha256, f"run: tools.exactness {entry.name}"
    for key, found in known.items():
        for counted in (found["test"], found["samples"]):
            assert counted["float32"] + counted["float64"] == counted["items"], key
