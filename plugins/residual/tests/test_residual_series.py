"""Series of which some items have more terms than others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flowzoo_residual.branch import convolutional
from flowzoo_residual.estimators import MOST_DRAWN, estimate, power_series, roulette
from torch import Tensor


@pytest.mark.parametrize("activation", ["lipswish", "elu"])
def test_items_are_multiplied_no_further_than_their_last_term(activation: Any, monkeypatch: Any) -> None:
    torch.manual_seed(0)
    branch = convolutional((2, 6, 5), 7, (3, 1, 3), activation, 0.9, activated_input=True).double()
    x, probe = (torch.randn(9, 2, 6, 5, dtype=torch.float64) for _ in range(2))
    series = roulette(torch.rand(9, MOST_DRAWN), 2, "poisson", 2.0)
    numbers = (series.value > 0).sum(dim=0)
    assert numbers.unique().numel() > 2
    tensors = branch.tensors()
    every = power_series(branch.linearised(x, tensors)[1], probe, series)
    given: list[int] = []
    linearised = branch.linearised

    def counting(x: Tensor, tensors: Any) -> Any:
        y, row_of = linearised(x, tensors)
        return y, lambda u: given.append(len(u)) or row_of(u)

    monkeypatch.setattr(branch, "linearised", counting)
    with torch.no_grad():
        z, log_det = estimate(branch, x, tensors, probe, series)
    assert sum(given) == int(numbers.sum())
    torch.testing.assert_close(z, x + branch.run(x, tensors))
    torch.testing.assert_close(log_det, every[0].detach())


def test_a_hook_of_an_activation_sees_the_same_estimates() -> None:
    torch.manual_seed(0)
    branch = convolutional((2, 6, 5), 7, (3, 1, 3), "lipswish", 0.9, activated_input=True).double()
    x, probe = (torch.randn(9, 2, 6, 5, dtype=torch.float64) for _ in range(2))
    series = roulette(torch.rand(9, MOST_DRAWN), 2, "poisson", 2.0)
    tensors = branch.tensors()
    with torch.no_grad():
        expected = estimate(branch, x, tensors, probe, series)
        hook = branch.activations[0].register_forward_hook(lambda *_: None)
        found = estimate(branch, x, tensors, probe, series)
        hook.remove()
    torch.testing.assert_close(found, expected)
