"""Directions that solve an equation: they converge or raise, say the residual, and have the right gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowzoo.bijectors import (
    ActNorm,
    Bijector,
    MapKind,
    polished,
    require_converged,
    residuals,
    solve_increasing,
)
from flowzoo.errors import NotConverged
from flowzoo.flow import Flow


def cubic(x: Tensor) -> Tensor:
    return x**3 / 50 + x


def test_roots_far_from_the_guess_are_found() -> None:
    wanted = torch.tensor([-1e4, -3.0, 0.0, 0.5, 2e3], dtype=torch.float64)
    found = solve_increasing(cubic, cubic(wanted))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_what_the_function_never_takes_is_not_a_number() -> None:
    found = solve_increasing(torch.sigmoid, torch.tensor([0.5, 1.5, -0.1, float("nan")], dtype=torch.float64))
    assert found[0].abs() < 1e-9
    assert found[1:].isnan().all()


def test_a_residual_above_the_tolerance_raises_and_names_the_rows() -> None:
    residual = torch.tensor([[0.0], [1.0], [float("nan")], [1e-7]])
    with pytest.raises(NotConverged, match=r"2 of 4 items .*rows 1, 2") as caught:
        require_converged(ActNorm((1,)), residual, 1e-6)
    assert caught.value.rows == (1, 2)


def test_residuals_are_reported() -> None:
    with residuals() as found:
        require_converged(ActNorm((1,)), torch.tensor([[1e-8], [-3e-7]]), 1e-6)
        require_converged(ActNorm((1,)), torch.tensor([[1e-9]]), 1e-6)
    assert found.count == 2
    assert found.largest == pytest.approx(3e-7)


def test_nothing_to_solve_is_solved() -> None:
    with residuals() as found:
        require_converged(ActNorm((1,)), torch.empty(0, 3), 1e-6)
    assert found.count == 0


def test_a_polished_root_has_the_gradient_of_the_solution() -> None:
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.7, -2.0], dtype=torch.float64, requires_grad=True)

    def solve(scale: Tensor, target: Tensor) -> Tensor:
        x = solve_increasing(lambda x: cubic(x) * scale.detach(), target)
        derivative = (3 * x**2 / 50 + 1) * scale
        return polished(x, cubic(x) * scale, derivative, target)

    assert torch.autograd.gradcheck(solve, (scale, target), atol=1e-6)


class OnlyBelowTwo(Bijector):
    """The identity, whose inverse does not converge above 2."""

    own_kind = MapKind(inverse="numeric", tolerance=1e-6)

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x * self.scale, x.new_zeros(len(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_converged(self, (z > 2).float(), 1e-6)
        return z / self.scale, z.new_zeros(len(z))


def test_samples_that_do_not_converge_are_drawn_again_and_the_others_kept() -> None:
    flow = Flow(dims=1, bijector=OnlyBelowTwo())
    plain = flow.base.sample(
        400, 1, generator=torch.Generator().manual_seed(3), device=torch.device("cpu"), dtype=torch.float32
    )
    with pytest.warns(UserWarning, match="drawn again"):
        found = flow.sample(400, seed=3, batch_size=64)
    good = (plain <= 2).flatten()
    assert 0 < int((~good).sum()) < 40
    assert torch.equal(found[good], plain[good])
    assert bool((found <= 2).all())
