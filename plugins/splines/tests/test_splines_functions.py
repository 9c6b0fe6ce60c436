"""Spline functions: increasing, invertible, differentiable everywhere, the identity at zero and outside."""

from __future__ import annotations

import pytest
import torch
from flowzoo_splines.functions import LinearSpline, QuadraticSpline, RationalQuadraticSpline, Spline
from torch import Tensor

from flowzoo.errors import ConfigError

KINDS: list[type[Spline]] = [LinearSpline, QuadraticSpline, RationalQuadraticSpline]
SPLINES = [
    pytest.param(spline, id=f"{kind.__name__}-{name}")
    for kind in KINDS
    for name, spline in (
        ("cube", kind(bins=5)),
        ("line", kind(bins=5, low=-3.0, high=3.0, linear_tails=True)),
        ("two bins", kind(bins=2, low=-1.0, high=2.0, linear_tails=True)),
    )
]
every = pytest.mark.parametrize("spline", SPLINES)


def raw_of(spline: Spline, n: int, scale: float = 1.5, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return (scale * torch.randn(n, spline.parameters, generator=generator, dtype=torch.float64)).to(dtype)


def across(spline: Spline, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linspace(spline.low, spline.high, n, dtype=dtype)


@every
def test_it_increases_from_end_to_end_and_its_slope_is_said(spline: Spline) -> None:
    raw, x = raw_of(spline, 7), across(spline, 2001)
    y, log_slope = spline(x.expand(7, -1), raw[:, None].expand(-1, 2001, -1))
    assert (y.diff(dim=1) > 0).all()
    torch.testing.assert_close(y[:, 0], torch.full((7,), spline.low, dtype=y.dtype))
    torch.testing.assert_close(y[:, -1], torch.full((7,), spline.high, dtype=y.dtype))
    # The integral of the slope is the whole interval, and the slope is that of autograd.
    area = torch.trapezoid(log_slope.exp(), x, dim=1)
    torch.testing.assert_close(area, torch.full_like(area, spline.high - spline.low), atol=0.02, rtol=0)
    points = (spline.low + (spline.high - spline.low) * torch.rand(7, dtype=x.dtype)).requires_grad_()
    y, log_slope = spline(points, raw)
    (slope,) = torch.autograd.grad(y.sum(), points)
    torch.testing.assert_close(log_slope.exp(), slope)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_inverts_as_well_as_its_slope_allows(spline: Spline, dtype: torch.dtype) -> None:
    """Within ten units of rounding, times what the slope (as flat as 1e-5 here, as steep as 1e4) makes of one."""
    width, unit = spline.high - spline.low, 10 * torch.finfo(dtype).eps
    # A third of the way beyond either end.
    x = torch.linspace(spline.low - 0.3 * width, spline.high + 0.3 * width, 400).to(dtype).repeat(10)
    raw = raw_of(spline, len(x), dtype=dtype)
    y, log_slope = spline(x, raw)
    back, inverse_log_slope = spline.inverse(y, raw)
    assert ((back - x).abs() <= unit * width * (1 + torch.exp(-log_slope))).all()
    again, log_slope_again = spline(back, raw)
    assert ((again - y).abs() <= unit * width * (1 + torch.exp(log_slope))).all()
    if dtype == torch.float64:
        torch.testing.assert_close(inverse_log_slope, -log_slope_again, atol=1e-8, rtol=0)


@every
def test_zero_is_the_identity_and_so_is_the_outside(spline: Spline) -> None:
    x = across(spline, 101)
    y, log_slope = spline(x, torch.zeros(101, spline.parameters, dtype=x.dtype))
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), atol=1e-12, rtol=0)
    far = torch.tensor([spline.low - 1e-9, spline.low - 5, spline.high + 1e-9, 1e30], dtype=x.dtype)
    for direction in (spline, spline.inverse):
        y, log_slope = direction(far, raw_of(spline, 4))
        assert torch.equal(y, far)
        assert torch.equal(log_slope, torch.zeros_like(far))


@pytest.mark.parametrize("kind", [QuadraticSpline, RationalQuadraticSpline])
def test_with_linear_tails_the_slope_is_continuous_at_the_ends(kind: type[Spline]) -> None:
    spline = kind(bins=4, low=-2.0, high=2.0, linear_tails=True)
    ends = torch.tensor([-2.0, 2.0], dtype=torch.float64)
    _, log_slope = spline(ends, raw_of(spline, 2))
    torch.testing.assert_close(log_slope, torch.zeros_like(ends), atol=1e-9, rtol=0)


@every
def test_gradients_are_right_in_both_directions(spline: Spline) -> None:
    generator = torch.Generator().manual_seed(4)
    place = torch.rand(6, generator=generator, dtype=torch.float64)
    x = (spline.low + (spline.high - spline.low) * place).requires_grad_()
    raw = raw_of(spline, 6).requires_grad_()
    assert torch.autograd.gradcheck(spline, (x, raw), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradcheck(spline.inverse, (x, raw), eps=1e-7, atol=1e-5)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_the_ends_the_knots_and_far_outside(
    spline: Spline, dtype: torch.dtype
) -> None:
    """The branch that is not taken is differentiated as well: its inputs must not reach a square root of zero."""
    places = [spline.low, spline.high, -1e30, -3.01, 3.01, 1e30, 0.0]
    knots = [spline.low + (spline.high - spline.low) * k / spline.bins for k in range(spline.bins)]
    for raw_scale in (0.0, 1.0, 30.0):
        x = torch.tensor(places + knots, dtype=dtype, requires_grad=True)
        raw = raw_of(spline, len(x), raw_scale, dtype).requires_grad_()
        for direction in (spline, spline.inverse):
            y, log_slope = direction(x, raw)
            gradients = torch.autograd.grad(y.sum() + log_slope.sum(), (x, raw), allow_unused=True)
            for found in (y, log_slope, *gradients):
                assert found is not None
                assert found.isfinite().all()
    outside = torch.full((3,), spline.high + 2, dtype=dtype, requires_grad=True)
    y, _ = spline.inverse(outside, raw_of(spline, 3, dtype=dtype))
    assert torch.equal(torch.autograd.grad(y.sum(), outside)[0], torch.ones(3, dtype=dtype))


def test_equal_neighbouring_heights_have_an_inverse() -> None:
    """The leading coefficient of the quadratic is zero there, and a division by it would be NaN."""
    spline = QuadraticSpline(bins=3)
    raw = torch.tensor([0.3, -0.2, 0.4, 0.7, 0.7, 0.7, -0.5], dtype=torch.float64)
    x = torch.linspace(0, 1, 300, dtype=torch.float64).requires_grad_()
    y, _ = spline(x, raw.expand(300, -1))
    back, log_slope = spline.inverse(y, raw.expand(300, -1))
    torch.testing.assert_close(back, x, atol=1e-12, rtol=0)
    assert torch.autograd.grad(back.sum() + log_slope.sum(), x)[0].isfinite().all()
    nearly = raw.clone()
    nearly[5] += 1e-12
    torch.testing.assert_close(spline.inverse(y, nearly.expand(300, -1))[0], x, atol=1e-9, rtol=0)


def test_the_discriminant_of_float32_never_ends_in_nan() -> None:
    """Extreme pieces: the discriminant is zero but for rounding."""
    spline = RationalQuadraticSpline(bins=8, low=-3.0, high=3.0, linear_tails=True)
    generator = torch.Generator().manual_seed(0)
    raw = 12 * torch.randn(20_000, spline.parameters, generator=generator)
    y = 6 * torch.rand(20_000, generator=generator) - 3
    x, log_slope = spline.inverse(y, raw)
    assert x.isfinite().all() and log_slope.isfinite().all()
    assert float(((x >= -3) & (x <= 3)).float().mean()) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_the_cube_stays_in_it(kind: type[Spline]) -> None:
    """The largest float below 1 must not round to more than 1, where a uniform base has no density."""
    spline = kind(bins=32)
    ends = torch.tensor([0.0, 1 - 2.0**-24, 1.0, 2.0**-60])
    for seed in range(50):
        raw = raw_of(spline, seed + 1, 4.0, torch.float32)[-1].expand(4, -1)
        for direction in (spline, spline.inverse):
            y, _ = direction(ends, raw)
            assert ((y >= 0) & (y <= 1)).all()


@every
def test_it_runs_under_vmap_and_per_sample_gradients(spline: Spline) -> None:
    raw, x = raw_of(spline, 6), across(spline, 6)
    together = spline(x, raw)
    torch.testing.assert_close(torch.vmap(spline)(x, raw), together)
    torch.testing.assert_close(torch.vmap(spline.inverse)(x, raw), spline.inverse(x, raw))

    def loss(value: Tensor, parameters: Tensor) -> Tensor:
        y, log_slope = spline(value, parameters)
        return y + log_slope

    found = torch.vmap(torch.func.grad(loss, argnums=1))(x, raw)
    leaf = raw.clone().requires_grad_()
    torch.testing.assert_close(found, torch.autograd.grad(loss(x, leaf).sum(), leaf)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_it_compiles_as_one_graph(kind: type[Spline]) -> None:
    spline = kind(bins=4, low=-1.0, high=1.0, linear_tails=True)
    x, raw = torch.linspace(-2, 2, 40), raw_of(spline, 40, dtype=torch.float32)

    def both(x: Tensor, raw: Tensor) -> tuple[Tensor, ...]:
        return (*spline(x, raw), *spline.inverse(x, raw))

    torch.testing.assert_close(torch.compile(both, fullgraph=True, backend="eager")(x, raw), both(x, raw))


def test_one_spline_of_all_values_is_that_spline_repeated() -> None:
    spline = LinearSpline(bins=6)
    raw, x = raw_of(spline, 1)[0], torch.rand(3, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(spline(x, raw), spline(x, raw.expand(3, 2, 4, -1)))
    torch.testing.assert_close(spline.inverse(x, raw), spline.inverse(x, raw.expand(3, 2, 4, -1)))


def test_a_linear_spline_is_a_histogram_and_a_quadratic_one_a_polygon() -> None:
    p = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    x = torch.tensor([0.1, 0.25, 0.6, 0.9], dtype=torch.float64)
    y, log_slope = LinearSpline(bins=4, minimum=1e-12)(x, p.log().expand(4, -1))
    torch.testing.assert_close(y, torch.tensor([0.04, 0.1, 0.62, 0.92], dtype=torch.float64))
    torch.testing.assert_close(log_slope.exp(), torch.tensor([0.4, 1.6, 1.2, 0.8], dtype=torch.float64))
    # Two bins, slopes 0, 2 and 0 at their knots: a triangle, whose distribution function is 2 x^2 up to the middle.
    triangle = QuadraticSpline(bins=2, minimum=1e-12)
    raw = torch.tensor([0.0, 0.0, -60.0, 0.0, -60.0], dtype=torch.float64)
    left = torch.tensor([0.1, 0.25, 0.5], dtype=torch.float64)
    y, log_slope = triangle(left, raw.expand(3, -1))
    torch.testing.assert_close(y, 2 * left.square())
    torch.testing.assert_close(log_slope.exp(), 4 * left)


@pytest.mark.parametrize(
    "wrong", [{"bins": 1}, {"bins": 3, "low": 1.0}, {"bins": 3, "minimum": 0.4}, {"bins": 3, "minimum": 0.0}]
)
def test_what_is_no_spline_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected 2 bins"):
        LinearSpline(**wrong)  # type: ignore[arg-type]
