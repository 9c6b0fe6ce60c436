"""The truth test of the accounting: what is counted is what a flow of the same histograms has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import flowzoo
from flowzoo.bijectors import HistogramCDF
from tools import truth

DICE = np.random.default_rng(3)
TRAIN = (DICE.random((300, 6)) ** 3 * 200).astype(np.uint8)
TEST = torch.from_numpy((DICE.random((80, 1, 2, 3)) ** 3 * 200).astype(np.uint8))


def test_a_flow_of_histograms_has_the_bits_that_were_counted() -> None:
    bound, code = truth.answers(TRAIN, TEST)
    for row in (bound, code):
        assert row.flow == pytest.approx(row.counted, abs=1e-5)
    assert bound.counted < code.counted < 8
    entropies = [np.unique(column, return_counts=True)[1] / 80 for column in TEST.flatten(1).numpy().T]
    assert bound.counted == pytest.approx(np.mean([-(p * np.log2(p)).sum() for p in entropies]))


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_log_determinant_that_is_off_fails(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    forward = HistogramCDF._forward

    def scaled(self: HistogramCDF, x: torch.Tensor, context: torch.Tensor | None) -> object:
        z, log_det = forward(self, x, context)
        return z, factor * log_det

    class Data:
        def load(self, split: str) -> object:
            images = TEST.numpy() if split == "test" else TRAIN.reshape(-1, 1, 2, 3)
            return type("Split", (), {"images": images})

    monkeypatch.setattr(HistogramCDF, "_forward", scaled)
    monkeypatch.setattr(truth, "get_dataset", lambda _: Data())
    with flowzoo.engine.disabled():
        done = CliRunner().invoke(truth.main, ["cifar10"])
    assert "300 training images" not in done.output and "600 training images" in done.output
    assert done.exit_code == (0 if factor == 1 else 1), done.output
    assert ("differs from what was counted" in done.output) == (factor != 1)
