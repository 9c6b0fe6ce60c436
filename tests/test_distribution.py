"""The real-valued side of a flow, as code that expects a distribution of torch takes it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
    kl_divergence,
)
from torch.distributions.transforms import AffineTransform

from flowzoo.bijectors import ActNorm, Bijector, Chain, sum_per_item
from flowzoo.errors import InputError
from flowzoo.factory import create
from flowzoo.flow import Flow


class Affine(Bijector):
    """z = (x - m) exp(-s)."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.linspace(-1, 1, dims, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.linspace(0.2, 0.6, dims, dtype=torch.float64))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (x - self.mean) * (-self.log_scale).exp(), -sum_per_item(self.log_scale.expand_as(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * self.log_scale.exp() + self.mean, sum_per_item(self.log_scale.expand_as(z))


def known(affine: Affine) -> Distribution:
    return Independent(Normal(affine.mean, affine.log_scale.exp()), 1)


@pytest.fixture
def affine() -> Affine:
    return Affine(2)


def test_it_is_a_distribution(affine: Affine) -> None:
    density = Flow(dims=2, bijector=affine).density
    assert isinstance(density, Distribution)
    assert (density.batch_shape, density.event_shape) == (torch.Size(), torch.Size([2]))
    assert density.has_rsample
    v = torch.randn(3, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(density.log_prob(v), known(affine).log_prob(v))
    assert density.log_prob(v[0, 0]).shape == ()
    assert density.sample().shape == (2,)
    assert density.sample((3, 4)).shape == (3, 4, 2)
    assert not density.sample((3,)).requires_grad


def test_reverse_kl_has_the_gradient_of_the_closed_form(affine: Affine) -> None:
    density = Flow(dims=2, bijector=affine).density
    target = Independent(Normal(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)), 1)
    v = density.rsample((200_000,), generator=torch.Generator().manual_seed(0))
    estimate = (density.log_prob(v) - target.log_prob(v)).mean()
    exact = torch.distributions.kl_divergence(known(affine), target)
    torch.testing.assert_close(estimate, exact, rtol=0.02, atol=0.02)
    for a, b in zip(
        torch.autograd.grad(estimate, list(affine.parameters())),
        torch.autograd.grad(exact, list(affine.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0.03, atol=0.03)


def test_code_that_expects_a_distribution_takes_it(affine: Affine) -> None:
    density = Flow(dims=2, bijector=affine).density
    moved = TransformedDistribution(density, [AffineTransform(1.0, 2.0, event_dim=1)])
    v = moved.sample((5,))
    other = TransformedDistribution(known(affine), [AffineTransform(1.0, 2.0, event_dim=1)])
    torch.testing.assert_close(moved.log_prob(v), other.log_prob(v))


def test_the_images_density_is_that_of_the_flow() -> None:
    torch.manual_seed(0)
    flow = create("glow-tiny").eval()
    flow.initialize(torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8))
    x = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    noise = torch.rand(x.shape)
    bits = torch.tensor(256.0).log() * flow.dims
    torch.testing.assert_close(
        flow.density.log_prob((x + noise) / 256) - bits, flow.log_prob(x, noise=noise), rtol=1e-4, atol=1e-2
    )
    v = flow.density.rsample((2,), temperature=0.5)
    v.sum().backward()
    assert all(p.grad is not None for p in flow.parameters() if p.requires_grad)


def test_it_reads_the_weights_as_they_are(affine: Affine) -> None:
    density = Flow(dims=2, bijector=Chain(affine)).density
    v = torch.zeros(1, 2, dtype=torch.float64)
    before = density.log_prob(v)
    affine.mean.data.add_(1)
    torch.testing.assert_close(density.log_prob(v), known(affine).log_prob(v))
    assert not torch.allclose(before, density.log_prob(v))


@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros(2, dtype=torch.int64), "v", torch.zeros(())])
def test_other_events_are_refused(affine: Affine, value: object) -> None:
    with pytest.raises(InputError, match="expected floating-point reals"):
        Flow(dims=2, bijector=affine).density.log_prob(value)  # type: ignore[arg-type]


def test_a_wrong_temperature_is_refused() -> None:
    with pytest.raises(InputError, match="temperature"):
        Flow(dims=2, bijector=ActNorm((2,))).density.sample((2,), temperature=-1)


def test_a_batch_of_equal_ones_goes_into_mixtures_and_products(affine: Affine) -> None:
    density = Flow(dims=2, bijector=affine).density
    three = density.expand((3,))
    assert (three.batch_shape, three.sample((5,)).shape) == (torch.Size([3]), (5, 3, 2))
    v = torch.randn(5, 1, 2, dtype=torch.float64)
    torch.testing.assert_close(three.log_prob(v), known(affine).log_prob(v).expand(5, 3))
    mixture = MixtureSameFamily(Categorical(torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)), three)
    torch.testing.assert_close(mixture.log_prob(v[:, 0]), density.log_prob(v[:, 0]))
    assert mixture.sample((7,)).shape == (7, 2)
    product = Independent(three, 1)
    torch.testing.assert_close(product.log_prob(v.expand(5, 3, 2)), 3 * density.log_prob(v[:, 0]))
    with pytest.raises(InputError, match="cannot become"):
        three.expand((2,))


def test_what_has_no_closed_form_says_how_to_estimate_it(affine: Affine) -> None:
    density = Flow(dims=2, bijector=affine).density
    for ask in (
        density.entropy,
        lambda: density.mean,
        lambda: density.variance,
        lambda: kl_divergence(density, known(affine)),
        lambda: kl_divergence(known(affine), density),
        lambda: kl_divergence(density, density),
    ):
        with pytest.raises(NotImplementedError, match="no closed form; estimate it, as"):
            ask()
