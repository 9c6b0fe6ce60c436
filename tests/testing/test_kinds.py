"""The kit's checks of kinds of maps: honest bijectors pass, and each lie is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowzoo.bijectors import Bijector, Chain, MapKind, require_converged, solve_increasing, sum_per_item
from flowzoo.flow import Flow
from flowzoo.nets.keyed import draw
from flowzoo.testing import CHECKS, checks_kind, randomize

D = 2


class Estimated(Bijector):
    """z = A x with log|det A| = tr log A by Hutchinson's estimator, A symmetric and positive."""

    own_kind = MapKind(log_det="unbiased")
    bias, keyed, stray = 0.0, True, 0.0

    def __init__(self) -> None:
        super().__init__()
        self.root = nn.Parameter(torch.tensor([[0.3, 0.2], [0.2, -0.1]]))

    def _symmetric(self) -> Tensor:
        return (self.root + self.root.T) / 2

    def _log_det(self, x: Tensor) -> Tensor:
        probe = draw(self, "rademacher", (D,), x) if self.keyed else torch.randn(x.shape).to(x)
        found = ((probe @ self._symmetric()) * probe).sum(1) + self.bias
        return found + self.stray * x.mean()

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x @ torch.linalg.matrix_exp(self._symmetric()), self._log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = z @ torch.linalg.matrix_exp(-self._symmetric())
        return x, -self._log_det(x)


class Solved(Bijector):
    """z = x + s x^3, inverted by bisection."""

    own_kind = MapKind(inverse="numeric", inverse_passes=60, tolerance=1e-10)
    reports, error = True, 0.0

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(()))

    def _map(self, x: Tensor) -> Tensor:
        return x + self.raw.exp() * x**3

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._map(x), sum_per_item((1 + 3 * self.raw.exp() * x**2).log())

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = solve_increasing(self._map, z) + self.error
        if self.reports:
            require_converged(self, self._map(x) - z, 1e-10)
        return x, -self._forward(x, None)[1]


class Trial:
    """The part of a subject that the checks of kinds ask for."""

    def __init__(self, make: Any, **changes: Any) -> None:
        self.make, self.changes = make, changes

    def build(self, seed: int, dtype: torch.dtype = torch.float64) -> Flow:
        bijector = self.make()
        for name, value in self.changes.items():
            setattr(bijector, name, value)
        return randomize(Flow(dims=D, bijector=Chain(bijector)).to(dtype).eval(), seed)


KIND = {name: CHECKS[name] for name in CHECKS if CHECKS[name].__module__ == checks_kind.__name__}


@pytest.mark.parametrize("make", [Estimated, Solved])
@pytest.mark.parametrize("name", KIND)
def test_honest_bijectors_pass(name: str, make: Any) -> None:
    assert KIND[name](Trial(make))  # type: ignore[arg-type]


LIES = [
    ("log_det is the Jacobian's", Estimated, {"bias": 0.3}, "not unbiased"),
    ("log_det is the Jacobian's", Estimated, {"own_kind": MapKind()}, "off by"),
    ("estimates are keyed", Estimated, {"keyed": False}, "two estimates"),
    ("estimates are keyed", Estimated, {"stray": 0.1}, "depends on its batch"),
    ("kind of map", Solved, {"reports": False}, "reports no residual"),
    ("kind of map", Solved, {"own_kind": MapKind()}, "solves equations"),
    ("kind of map", Solved, {"own_kind": MapKind(inverse="numeric")}, "no tolerance"),
    ("kind of map", Solved, {"error": 0.1}, "did not converge"),
]


@pytest.mark.parametrize(("name", "make", "changes", "words"), LIES)
def test_each_lie_is_found(name: str, make: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        KIND[name](Trial(make, **changes))  # type: ignore[arg-type]


def test_a_biased_estimate_is_said_not_held_to_anything() -> None:
    biased = Trial(Estimated, bias=0.3, own_kind=MapKind(log_det="biased"))
    assert "biased by 3" in KIND["log_det is the Jacobian's"](biased)  # type: ignore[arg-type]


def test_a_wrong_density_does_not_integrate() -> None:
    class Loud(Solved):
        def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            z, log_det = super()._forward(x, context)
            return z, log_det + 0.2

    with pytest.raises(AssertionError, match="integrates to"):
        KIND["density integrates"](Trial(Loud))  # type: ignore[arg-type]
