"""Samples ask for values alone: the same ones, by fewer evaluations, and only there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flowzoo
from flowzoo.bijectors import Bijector, log_det_wanted, round_trip_wanted, unknown_log_det, values_alone

SLOW = ("maf-tiny", "tarflow-tiny", "pixelcnn-toy", "residual-tiny", "ffjord-tiny", "naf-tiny")


def stirred(name: str) -> Any:
    torch.manual_seed(0)
    flow = flowzoo.create(name).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return flow.eval()


@pytest.mark.parametrize("name", SLOW)
def test_values_do_not_depend_on_what_is_wanted(name: str) -> None:
    flow = stirred(name)
    options = {"generator": torch.Generator().manual_seed(1), "device": "cpu", "dtype": torch.float64}
    z = flow.base.sample(2, flow.dims, **options)
    with torch.no_grad():
        whole, log_det = flow.bijector.inverse(z)
        with values_alone():
            alone, _ = flow.bijector.inverse(z)
    torch.testing.assert_close(alone, whole, rtol=0, atol=0)
    assert log_det.abs().min() > 0


class Noting(Bijector):
    """The identity, which notes whether its log-determinant and a way back were wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.wanted: list[tuple[bool, bool]] = []

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x * self.scale, x.new_zeros(len(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.wanted.append((log_det_wanted(), round_trip_wanted()))
        return z / self.scale, unknown_log_det(z)


def test_samples_want_neither_decoding_a_way_back_and_inverses_both() -> None:
    bijector, z = Noting(), torch.zeros(3, 2)
    flow = flowzoo.Flow(dims=2, bijector=bijector)
    flow.sample(3, seed=0)
    flow.density.rsample((3,))
    flow.decode(z)
    bijector.inverse(z)
    flow.engine.run(bijector, z, inverse=True)
    assert bijector.wanted == [(False, False), (False, False), (False, True), (True, True), (True, True)]


def test_a_context_that_fails_is_left() -> None:
    with pytest.raises(RuntimeError), values_alone(drawn=True):
        raise RuntimeError
    assert log_det_wanted()
    assert round_trip_wanted()
