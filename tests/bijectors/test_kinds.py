"""Kinds of maps: a chain is as weak as the weakest of its parts, and a reversed map exchanges its directions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowzoo.bijectors import ActNorm, Bijector, Chain, FactorOut, Flatten, Inverse, MapKind
from flowzoo.errors import ConfigError
from flowzoo.flow import Flow


class Solved(Bijector):
    """The identity, which claims to be solved for in one direction."""

    own_kind = MapKind(log_det="unbiased", inverse="numeric", inverse_passes=7, tolerance=1e-5)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(len(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z, z.new_zeros(len(z))


def test_most_bijectors_are_exact_and_take_one_pass() -> None:
    assert Chain(ActNorm((2,)), Flatten((2, 2, 2))).map_kind == MapKind()


def test_a_chain_is_as_weak_as_its_weakest_part_however_deep() -> None:
    deep = FactorOut(Chain(Solved(), Flatten((1, 2, 2))))
    for whole in (Chain(ActNorm((2,)), deep), Flow(image_shape=(2, 2, 2), bijector=Chain(deep)).bijector):
        assert whole.log_det_kind == "unbiased"
        assert whole.inverse_kind == "numeric"
        assert (whole.forward_passes, whole.inverse_passes) == (1, 7)
        assert whole.map_kind.tolerance == 1e-5


def test_the_inverse_exchanges_directions() -> None:
    kind = Inverse(Solved()).map_kind
    assert (kind.forward, kind.inverse) == ("numeric", "analytic")
    assert (kind.forward_passes, kind.inverse_passes) == (7, 1)
    assert Inverse(Inverse(Solved())).map_kind == Solved().map_kind


def test_biased_is_weaker_than_unbiased_and_numeric_than_sequential() -> None:
    joined = MapKind(log_det="biased", inverse="sequential").joined(
        MapKind(log_det="unbiased", inverse="numeric")
    )
    assert (joined.log_det, joined.inverse) == ("biased", "numeric")


def test_a_flow_says_its_kind() -> None:
    flow = Flow(dims=2, bijector=Chain(Solved(), ActNorm((2,))))
    assert (flow.log_det_kind, flow.inverse_kind) == ("unbiased", "numeric")
    assert (flow.density_passes, flow.sampling_passes) == (1, 7)


@pytest.mark.parametrize("wrong", [{"log_det": "good"}, {"inverse": "quick"}, {"forward_passes": 0}])
def test_what_is_no_kind_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="MapKind"):
        MapKind(**wrong)  # type: ignore[arg-type]


def test_the_old_contract_still_holds() -> None:
    """A bijector written for version 1 says nothing of kinds."""

    class Old(Bijector):
        def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            return 2 * x, torch.full((len(x),), 0.0)

    assert Old().map_kind == MapKind()


def test_a_bijector_may_have_a_kind_of_its_own() -> None:
    """Version 1 left the name free."""

    class Old(Bijector):
        def __init__(self) -> None:
            super().__init__()
            self.kind = "mine"

    assert Old().kind == "mine"
