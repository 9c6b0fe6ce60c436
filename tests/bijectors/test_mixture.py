"""The logistic mixture: its CDF, its tails, and the accuracy of its inverse in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowzoo.bijectors import LogisticMixture


def mixture(spread: float, scale: float, dtype: torch.dtype = torch.float64) -> LogisticMixture:
    torch.manual_seed(0)
    shape = (500, 5, 8)
    return LogisticMixture.from_raw(
        torch.randn(shape, dtype=dtype) * 2,
        torch.randn(shape, dtype=dtype) * spread,
        torch.randn(shape, dtype=dtype) * scale,
    )


def test_cdf_is_the_weighted_sum_of_logistic_cdfs() -> None:
    m = mixture(2, 0.5)
    x = torch.randn(500, 8, dtype=torch.float64)
    y, log_slope = m.logit_cdf(x)
    components = torch.sigmoid((x[:, None] - m.means) * torch.exp(-m.log_scales))
    direct = (m.log_weights.exp() * components).sum(1)
    assert torch.allclose(torch.sigmoid(y), direct, atol=1e-12)
    x.requires_grad_()
    slope = torch.autograd.grad(m.logit_cdf(x)[0].sum(), x)[0]
    assert torch.allclose(slope.log(), log_slope, atol=1e-9)


def test_tails_keep_their_digits_in_float32() -> None:
    m = mixture(1, 0.1, torch.float32)
    double = LogisticMixture(*(field.double() for field in m))
    for at in (-60.0, 60.0):
        x = torch.full((500, 8), at)
        y, log_slope = m.logit_cdf(x)
        y_true, log_slope_true = double.logit_cdf(x.double())
        assert ((y - y_true).abs() / y_true.abs()).max() < 1e-5
        assert (log_slope - log_slope_true).abs().max() < 1e-3


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_inverse_in_float32_meets_its_stated_error(spread: float, scale: float) -> None:
    m = mixture(spread, scale, torch.float32)
    y = torch.randn(500, 8) * 4
    x = m.inverse_logit_cdf(y)
    double = LogisticMixture(*(field.double() for field in m))
    value, log_slope = double.logit_cdf(x.double())
    # The root may be off by a few units in the last place of x, which a steep map shows as more in y.
    last_place = 8 * torch.finfo(torch.float32).eps * (1 + x.abs() + m.means.abs().amax(1))
    allowed = 1e-4 * (1 + y.abs()) + last_place * log_slope.exp()
    assert bool(((value - y).abs() <= allowed).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [50.0, 80.0, 1e2, 1e3, 1e4])
def test_inverse_reaches_into_the_tails(size: float, dtype: torch.dtype) -> None:
    m = mixture(1, 0.3, dtype)
    x = size * torch.where(torch.arange(500) % 2 == 0, 1.0, -1.0).to(dtype)[:, None].expand(500, 8)
    y, _ = m.logit_cdf(x)
    assert ((m.inverse_logit_cdf(y) - x).abs() <= 20 * torch.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("spread", [0.1, 10.0])
def test_inverse_in_float64_is_exact(spread: float) -> None:
    m = mixture(spread, 1.0)
    x = torch.randn(500, 8, dtype=torch.float64) * 3
    assert (m.inverse_logit_cdf(m.logit_cdf(x)[0]) - x).abs().max() < 1e-8


def test_gradients_of_the_inverse_are_those_of_the_implicit_function() -> None:
    torch.manual_seed(0)
    fields = [torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    y = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def solve(target: Tensor, *raw: Tensor) -> Tensor:
        return LogisticMixture.from_raw(*raw).inverse_logit_cdf(target)

    assert torch.autograd.gradcheck(solve, (y, *fields), atol=1e-5)
