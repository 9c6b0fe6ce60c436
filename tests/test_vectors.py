"""Flows over real vectors: a density in nats, checked against torch's own distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import LogNormal, MultivariateNormal

from flowzoo.bijectors import Bijector, Chain, Inverse, Logit, Standardize, sum_per_item
from flowzoo.densities import StandardUniform, UniformDequantization
from flowzoo.errors import ConfigError, InputError
from flowzoo.flow import Flow
from flowzoo.nets.initialization import DataDependentInit


class Exponential(Bijector):
    """z = log x."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(0.3))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z = x.log()
        return z - self.shift, -sum_per_item(z)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (z + self.shift).exp(), sum_per_item(z + self.shift)


@pytest.fixture
def flow() -> Flow:
    return Flow(dims=3, bijector=Exponential())


def test_it_is_the_known_density(flow: Flow) -> None:
    x = torch.rand(6, 3) + 0.1
    known = LogNormal(torch.tensor(0.3), 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(flow.log_prob(x), known)
    torch.testing.assert_close(flow(x), known)
    torch.testing.assert_close(flow.per_dim(known), -known / 3)


def test_it_says_what_it_is(flow: Flow) -> None:
    assert (flow.data_kind, flow.data_shape, flow.unit) == ("vectors", (3,), "nats/dim")
    assert not flow.valid_bpd
    assert not flow.is_lower_bound
    with pytest.raises(InputError, match="no bits per dimension"):
        flow.bits_per_dim(torch.rand(2, 3))
    assert "vectors of 3 numbers" in flow.summary()


def test_sample_encode_and_decode(flow: Flow) -> None:
    x = flow.sample(5, seed=0)
    assert x.shape == (5, 3)
    assert x.dtype == torch.float32
    assert torch.equal(x, flow.sample(5, seed=0, batch_size=2))
    torch.testing.assert_close(flow.reconstruct(x), x)
    assert flow.sample(0).shape == (0, 3)
    cold = flow.sample(5, seed=0, temperature=0.0)
    torch.testing.assert_close(cold, torch.full_like(cold, math.exp(0.3)))


def test_float64_data_of_a_float64_model() -> None:
    flow = Flow(dims=3, bijector=Exponential()).double()
    x = torch.rand(4, 3, dtype=torch.float64) + 0.1
    assert flow.log_prob(x).dtype == torch.float64
    assert flow.log_prob(x.float()).dtype == torch.float64


def test_gradients_at_the_data(flow: Flow) -> None:
    flow.double()
    x = (torch.rand(4, 3, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(flow.log_prob, (x,))
    hessian = torch.func.hessian(lambda v: flow.log_prob(v[None])[0])(x[0].detach())
    assert hessian.shape == (3, 3)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.tensor([[0.1, float("nan"), 1.0], [1.0, 1.0, 1.0], [1.0, float("inf"), 1.0]]), "rows 0, 2"),
        (torch.zeros(2, 3, dtype=torch.uint8), "floating-point"),
        (torch.rand(2, 4), r"expects \(B, 3\)"),
        (torch.rand(3), r"expects \(B, 3\)"),
        (torch.rand(0, 3), "empty"),
        ([[1.0, 2.0, 3.0]], "torch.from_numpy"),
    ],
)
def test_what_is_no_vector_is_refused(flow: Flow, x: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        flow.log_prob(x)  # type: ignore[arg-type]


def test_a_flow_is_over_images_or_over_vectors() -> None:
    with pytest.raises(ConfigError, match="give image_shape"):
        Flow(bijector=Exponential())
    with pytest.raises(ConfigError, match="give image_shape"):
        Flow(bijector=Exponential(), dims=3, image_shape=(1, 2, 2))
    with pytest.raises(ConfigError, match="no dequantization"):
        Flow(bijector=Exponential(), dims=3, dequantization=UniformDequantization())
    with pytest.raises(ConfigError, match="dims is 0"):
        Flow(bijector=Exponential(), dims=0)


def test_a_uniform_base_under_a_distribution_function() -> None:
    """The inverse of the logit is the logistic's distribution function: with a uniform base, the logistic."""
    flow = Flow(dims=2, bijector=Chain(Standardize(2), Inverse(Logit(1e-9))), base=StandardUniform()).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    known = -(torch.nn.functional.softplus(x) + torch.nn.functional.softplus(-x)).sum(1)
    torch.testing.assert_close(flow.log_prob(x), known, rtol=1e-6, atol=1e-6)


def test_standardisation_is_part_of_the_model() -> None:
    data = torch.randn(500, 2) * torch.tensor([100.0, 0.01]) + torch.tensor([-3.0, 7.0])
    flow = Flow(dims=2, bijector=Chain(Standardize(2)))
    assert isinstance(flow.bijector.bijectors[0], DataDependentInit)
    assert not flow.is_initialized
    assert flow.initialize(data)
    std, mean = torch.std_mean(data, 0, correction=0)
    known = MultivariateNormal(mean, torch.diag(std.square())).log_prob(data)
    torch.testing.assert_close(flow.log_prob(data), known, rtol=1e-3, atol=1e-3)
    other = Flow(dims=2, bijector=Chain(Standardize(2)))
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other.log_prob(data), flow.log_prob(data))


def test_a_column_that_does_not_vary_is_refused() -> None:
    data = torch.stack((torch.randn(50), torch.ones(50)), 1)
    with pytest.raises(InputError, match="do not vary"):
        Flow(dims=2, bijector=Chain(Standardize(2))).initialize(data)
