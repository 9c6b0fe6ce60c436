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
    solve_by_newton,
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


# --- Newton steps inside a bracket ----------------------------------------------------------------------------


def steep(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Flat for long, then steep: far from the root a Newton step leaps out of the bracket."""
    inner = torch.tanh(x - shift)
    return scale * inner + 0.01 * x, scale * (1 - inner**2) + 0.01


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_newton_steps_converge_where_they_would_leap_away(dtype: torch.dtype, within: float) -> None:
    wanted = torch.tensor([[-300.0, -3.0, 0.0], [0.5, 4.0, 900.0]], dtype=dtype)
    scale = torch.tensor([[1.0, 0.5, 2.0], [1.0, 3.0, 1.0]], dtype=dtype)
    shift = torch.tensor([[0.0, -2.0, 1.0], [40.0, 0.0, 0.0]], dtype=dtype)
    evaluations = list[int]()

    def counted(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        evaluations.append(x.numel())
        return steep(x, scale, shift)

    target = steep(wanted, scale, shift)[0]
    found = solve_by_newton(counted, target, (scale, shift))
    assert (found.shape, found.dtype) == (wanted.shape, dtype)
    assert float(((steep(found, scale, shift)[0] - target) / target.abs().clamp(min=1)).abs().max()) < within
    if dtype is torch.float64:
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
        assert len(evaluations) < 80
    assert evaluations[-1] < wanted.numel(), "what is solved is not computed any further"


def test_newton_steps_from_a_good_guess_are_few() -> None:
    wanted = torch.linspace(-5, 5, 20, dtype=torch.float64)
    calls = list[int]()

    def counted(x: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return cubic(x), 3 * x**2 / 50 + 1

    found = solve_by_newton(counted, cubic(wanted), guess=wanted + 0.1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)
    assert len(calls) <= 8, "2 for the bracket; bisection alone would take 50"


def test_what_newton_steps_cannot_reach_is_not_a_number_and_raises() -> None:
    def sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.sigmoid(x)
        return value, value * (1 - value)

    target = torch.tensor([0.5, 1.5, -0.1, float("nan"), 0.25], dtype=torch.float64)
    found = solve_by_newton(sigmoid, target)
    torch.testing.assert_close(found[[0, 4]], torch.logit(target[[0, 4]]), rtol=0, atol=1e-12)
    assert found[1:4].isnan().all()
    with pytest.raises(NotConverged, match=r"3 of 5 items .*rows 1, 2, 3"):
        require_converged(ActNorm((1,)), sigmoid(found)[0] - target, 1e-6)
    stopped = solve_by_newton(sigmoid, target[4:], steps=1)
    with pytest.raises(NotConverged, match="1 of 1 items"):
        require_converged(ActNorm((1,)), sigmoid(stopped)[0] - target[4:], 1e-6)


def test_a_newton_root_when_polished_has_the_gradient_of_the_solution() -> None:
    scale = torch.tensor([1.3, 0.6], dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([0.2, -1.0], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.7, -0.3], dtype=torch.float64, requires_grad=True)

    def solve(scale: Tensor, shift: Tensor, target: Tensor) -> Tensor:
        x = solve_by_newton(steep, target, (scale, shift))
        assert not x.requires_grad
        value, slope = steep(x, scale, shift)
        return polished(x, value, slope, target)

    assert torch.autograd.gradcheck(solve, (scale, shift, target), atol=1e-6)


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
