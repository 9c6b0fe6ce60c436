"""Base densities: they integrate to one, and their samples have the distribution that they claim."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowzoo.densities import (
    BaseDensity,
    LogisticMixture,
    NormalMixture,
    StandardBeta,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
)
from flowzoo.errors import ConfigError


def randomized(mixture: BaseDensity) -> BaseDensity:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return mixture.double()


BASES: dict[str, tuple[BaseDensity, float, float]] = {
    "normal": (StandardNormal(), -12, 12),
    "logistic": (StandardLogistic(), -60, 60),
    "uniform": (StandardUniform(), 0, 1),
    "beta": (StandardBeta(5.0, 2.5), 0, 1),
    "normals": (randomized(NormalMixture(4)), -40, 40),
    "logistics": (randomized(LogisticMixture(3)), -90, 90),
}


def points(low: float, high: float, n: int = 400_001) -> Tensor:
    return torch.linspace(low, high, n, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("name", BASES)
def test_it_integrates_to_one(name: str) -> None:
    base, low, high = BASES[name]
    z = points(low, high)
    density = base.log_prob(z).detach().exp()
    assert torch.trapezoid(density, z[:, 0]).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", BASES)
def test_samples_have_the_distribution(name: str) -> None:
    """The distribution function of the density, at its samples, is uniform (Kolmogorov and Smirnov)."""
    base, low, high = BASES[name]
    n = 4000
    generator = torch.Generator().manual_seed(1)
    z = base.sample(n, 1, generator=generator, device=torch.device("cpu"), dtype=torch.float64).detach()
    grid = points(low, high)[:, 0]
    cdf = torch.cumulative_trapezoid(base.log_prob(grid[:, None]).detach().exp(), grid)
    at = cdf[torch.searchsorted(grid, z[:, 0].contiguous()).clamp(1, len(cdf)) - 1].sort().values
    steps = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert (at - steps).abs().max().item() < 1.95 / math.sqrt(n)


@pytest.mark.parametrize("name", BASES)
def test_dimensions_are_independent_and_the_generator_decides(name: str) -> None:
    base, *_ = BASES[name]

    def drawn(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return base.sample(
            50, 3, generator=generator, device=torch.device("cpu"), dtype=torch.float64
        ).detach()

    z = drawn(0)
    assert z.shape == (50, 3)
    before = torch.random.get_rng_state()
    assert torch.equal(z, drawn(0))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(z, drawn(1))
    joint = sum(base.log_prob(z[:, i : i + 1]) for i in range(3))
    torch.testing.assert_close(base.log_prob(z), joint)


@pytest.mark.parametrize("base", [StandardUniform(), StandardBeta(2, 3)], ids=["uniform", "beta"])
def test_outside_the_cube_there_is_nothing(base: BaseDensity) -> None:
    z = torch.tensor([[0.5, 1.01], [-0.01, 0.5], [0.3, 0.7]], requires_grad=True)
    found = base.log_prob(z)
    assert found.isneginf().tolist() == [True, True, False]
    found[2].backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_a_mixture_of_its_own_in_each_dimension() -> None:
    base = randomized(NormalMixture(2, dims=3))
    z = torch.randn(6, 3, dtype=torch.float64)
    other = z[:, [1, 0, 2]]
    assert not torch.allclose(base.log_prob(z), base.log_prob(other))
    assert torch.autograd.gradcheck(base.log_prob, (z.requires_grad_(),))


def test_beta_is_torchs() -> None:
    z = torch.rand(9, 2, dtype=torch.float64)
    torch_beta = torch.distributions.Beta(
        torch.tensor(0.7, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    )
    torch.testing.assert_close(StandardBeta(0.7, 3).log_prob(z), torch_beta.log_prob(z).sum(1))


CENTRES = [(StandardNormal(), 0), (StandardUniform(), 0.5), (StandardBeta(2, 6), 0.25)]


@pytest.mark.parametrize(("base", "centre"), CENTRES)
def test_a_low_temperature_draws_towards_the_centre(base: BaseDensity, centre: float) -> None:
    z = torch.tensor([[0.2, 0.9]])
    torch.testing.assert_close(base.at_temperature(z, 0.0), torch.full_like(z, centre))
    assert base.at_temperature(z, 1.0) is z
    torch.testing.assert_close(base.at_temperature(z, 0.5), (z + centre) / 2)


WRONG = [lambda: StandardBeta(0, 1), lambda: StandardBeta(1, math.inf), lambda: NormalMixture(0)]


@pytest.mark.parametrize("make", WRONG)
def test_what_is_no_density_is_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="expected"):
        make()  # type: ignore[operator]
