"""Samples and latents ask for values alone: the same ones, by fewer evaluations, and only there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flowzoo
from flowzoo.bijectors import Bijector, log_det_wanted, round_trip_wanted, unknown_log_det, values_alone
from flowzoo.evaluation.sampling import count_finite

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


@pytest.mark.parametrize("name", SLOW)
def test_latents_do_not_depend_on_what_is_wanted(name: str) -> None:
    flow = stirred(name)
    x = flow.base.sample(
        2, flow.dims, generator=torch.Generator().manual_seed(1), device="cpu", dtype=torch.float64
    )
    with torch.no_grad():
        x = flow.bijector.inverse(x)[0]
        whole, log_det = flow.bijector(x)
        with values_alone():
            alone, unknown = flow.bijector(x)
    torch.testing.assert_close(alone, whole, rtol=0, atol=0)
    assert log_det.abs().min() > 0
    if name in ("residual-tiny", "ffjord-tiny"):
        assert not torch.allclose(unknown, log_det), "an estimate that nobody wants was computed"


class Noting(Bijector):
    """The identity, which notes whether its log-determinant and a way back were wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.wanted: list[tuple[bool, bool]] = []

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.wanted.append((log_det_wanted(), round_trip_wanted()))
        return x * self.scale, unknown_log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.wanted.append((log_det_wanted(), round_trip_wanted()))
        return z / self.scale, unknown_log_det(z)


def test_latents_want_no_log_determinant_and_densities_do() -> None:
    bijector, x = Noting(), torch.zeros(3, 2)
    flow = flowzoo.Flow(dims=2, bijector=bijector)
    flow.encode(x)
    flow.encode(x, grad=True)
    flow.log_prob(x)
    flow.density.log_prob(x)
    bijector(x)
    assert [log_det for log_det, _ in bijector.wanted] == [False, False, True, True, True]


def test_the_count_of_finite_samples_wants_a_way_back_and_no_log_determinant() -> None:
    bijector = Noting()
    count_finite(flowzoo.Flow(dims=2, bijector=bijector), 10)
    assert set(bijector.wanted) == {(False, True)}


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
