"""Elementwise flows: the conformance kit, known densities, and the exact answer that accounting is tested with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from flowzoo_cdf.bijectors import FullAffine, MixtureCDF, UniformToBeta
from torch import Tensor
from torch.distributions import Beta, Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

import flowzoo
from flowzoo.bijectors import HistogramCDF
from flowzoo.errors import ConfigError
from flowzoo.testing import Subject, checks_kind, conformance_suite, randomize

test_conformance = conformance_suite("cdf")


def test_a_histogram_flow_has_exactly_the_histograms_probabilities() -> None:
    """Grey levels are the bins, so the noise does not matter: log P(x) is the sum of the pixels' log-probabilities."""
    torch.manual_seed(0)
    flow = randomize(flowzoo.create("cdf", image_shape=(1, 3, 4)).double(), seed=1, scale=1.0)
    x = torch.randint(0, 256, (20, 1, 3, 4), dtype=torch.uint8)
    (histogram,) = [m for m in flow.modules() if isinstance(m, HistogramCDF)]
    log_p = histogram.logits.log_softmax(1)
    known = log_p[torch.arange(12), x.flatten(1).long()].sum(1)
    for seed in (0, 1):
        found = flow.log_prob(x, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(found, known)


def test_counts_are_the_maximum_of_the_likelihood_and_bits_are_the_entropy() -> None:
    """The truth test in small: with the counts as its histogram, mean bits/dim are the entropy of the pixels."""
    generator = torch.Generator().manual_seed(2)
    x = (torch.rand(400, 1, 2, 3, generator=generator) ** 3 * 7).to(torch.uint8) * 32
    flow = flowzoo.create("cdf", image_shape=(1, 2, 3), n_bits=3, bins=8).double()
    (histogram,) = [m for m in flow.modules() if isinstance(m, HistogramCDF)]
    levels = (x >> 5).flatten(1).long()
    counts = torch.stack([torch.bincount(levels[:, d], minlength=8) for d in range(6)]).double()
    p = counts / counts.sum(1, keepdim=True)
    with torch.no_grad():
        histogram.logits.copy_(p.clamp(1e-12).log())
    entropy = -(torch.special.xlogy(p, p)).sum(1).mean() / math.log(2)
    bits = flow.bits_per_dim(x, seed=0).mean()
    torch.testing.assert_close(bits, entropy, atol=1e-9, rtol=0)
    # No other histogram has fewer.
    assert flow.bits_per_dim(x, seed=0).mean() < randomize(flow, 3).bits_per_dim(x, seed=0).mean()


def test_the_brightest_level_under_the_largest_noise_stays_in_the_cube() -> None:
    """255 and the largest float below 1 round to 256, whose image under a histogram may round above 1."""
    x, noise = torch.full((50, 1, 8, 8), 255, dtype=torch.uint8), torch.full((50, 1, 8, 8), 1 - 2.0**-24)
    for seed in range(20):
        flow = randomize(flowzoo.create("cdf-tiny"), seed, scale=2.0)
        assert flow.log_prob(x, noise=noise).isfinite().all()
        assert flow.log_prob(torch.zeros_like(x), noise=torch.zeros_like(noise)).isfinite().all()


@pytest.mark.parametrize("output", ["uniform", "normal", "logistic"])
@pytest.mark.parametrize("kind", ["normals", "logistics"])
def test_mixtures_have_their_density_and_invert(kind: Any, output: Any) -> None:
    torch.manual_seed(1)
    bijector = MixtureCDF(2, 3, kind, output).double()
    with torch.no_grad():
        for parameter in bijector.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    x = 2 * torch.randn(30, 2, dtype=torch.float64)
    z, log_det = bijector(x)
    if kind == "normals":
        normal = Normal(bijector.means, bijector.log_scales.exp())
        mixture = MixtureSameFamily(Categorical(logits=bijector.logits), normal)
        base = {
            "uniform": torch.zeros_like(z),
            "normal": Normal(0.0, 1.0).log_prob(z),
            "logistic": -torch.nn.functional.softplus(z) - torch.nn.functional.softplus(-z),
        }[output]
        torch.testing.assert_close(base.sum(1) + log_det, mixture.log_prob(x).sum(1))
    back, inverse_log_det = bijector.inverse(z)
    torch.testing.assert_close(back, x, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(inverse_log_det, -log_det, atol=1e-6, rtol=1e-6)


def test_values_far_out_stay_apart_in_float32() -> None:
    bijector = MixtureCDF(1, 2, "normals", "normal")
    x = torch.tensor([[-11.0], [-9.0], [9.0], [11.0]])
    z, log_det = bijector(x)
    assert z.isfinite().all() and log_det.isfinite().all()
    assert (z.diff(dim=0) > 1).all()
    torch.testing.assert_close(z, -z.flip(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bijector.inverse(z)[0], x, atol=1e-3, rtol=1e-4)


def test_samples_have_gradients_by_the_parameters() -> None:
    torch.manual_seed(0)
    bijector = MixtureCDF(1, 2, "logistics", "logistic").double()
    z = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)

    def sample(means: Tensor, log_scales: Tensor) -> Tensor:
        weights = {"means": means, "log_scales": log_scales}
        named = {f"inner.{name}": value for name, value in weights.items()}
        found: Tensor = torch.func.functional_call(_Inverse(bijector), named, (z,))
        return found

    inputs = (bijector.means.detach().requires_grad_(), bijector.log_scales.detach().requires_grad_())
    assert torch.autograd.gradcheck(sample, inputs, atol=1e-5)


class _Inverse(torch.nn.Module):
    def __init__(self, inner: MixtureCDF) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor) -> Tensor:
        return self.inner.inverse(z)[0]


@pytest.mark.parametrize(("a", "b"), [(5, 5), (1, 1), (2, 7)])
def test_uniform_to_beta(a: int, b: int) -> None:
    bijector, u = UniformToBeta(a, b), torch.linspace(1e-6, 1 - 1e-6, 50, dtype=torch.float64)[:, None]
    z, log_det = bijector(u)
    known = Beta(torch.tensor(float(a), dtype=torch.float64), torch.tensor(float(b), dtype=torch.float64))
    torch.testing.assert_close(log_det, -known.log_prob(z).sum(1))
    torch.testing.assert_close(bijector.inverse(z)[0], u, atol=1e-9, rtol=0)
    ends, _ = bijector(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    assert ((ends >= 0) & (ends <= 1)).all()


def test_a_full_affine_map_and_a_normal_base_are_the_multivariate_normal() -> None:
    flow = flowzoo.create("cdf", dims=3, elementwise="affine", full_affine=True, base="normal").double()
    data = torch.randn(200, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) + 4
    flow.initialize(data)
    randomize(flow, 4)
    x, context = data[:5], None
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.bijector(v[None], context)[0][0], x[0])
    precision = jacobian.T @ jacobian
    mean = flow.bijector.inverse(torch.zeros(1, 3, dtype=torch.float64))[0][0]
    known = MultivariateNormal(mean, precision_matrix=precision).log_prob(x)
    torch.testing.assert_close(flow.log_prob(x), known.detach())
    assert any(isinstance(m, FullAffine) for m in flow.modules())


VARIANTS = [
    {"dims": 2, "elementwise": "normals", "base": "normal", "components": 3},
    {"dims": 1, "elementwise": "logistics", "base": "beta", "components": 2},
    {"dims": 2, "elementwise": "logistics", "base": "logistic", "shared": True, "full_affine": True},
    {"dims": 2, "elementwise": "affine", "base": "normal", "full_affine": True},
    {"image_shape": (1, 2, 2), "elementwise": "logistics", "base": "logistic", "alpha": 0.05},
    {"image_shape": (1, 2, 2), "elementwise": "affine", "base": "normal"},
    {"image_shape": (1, 2, 2), "shared": True, "base": "beta", "bins": 8},
]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_variant_is_what_it_says(config: dict[str, Any]) -> None:
    subject = Subject.variant("cdf", **config)
    assert checks_kind.kind_is_said(subject)
    assert checks_kind.log_det_is_jacobian(subject)
    assert checks_kind.density_integrates(subject)


def test_independent_normals_are_told_apart_from_the_entropy_only_by_sampling_error() -> None:
    """An exact model's mean nats are the entropy within the standard error."""
    flow = flowzoo.create("cdf", dims=2, elementwise="affine", base="normal").double()
    x = Independent(Normal(torch.zeros(2), torch.ones(2)), 1).sample((20_000,)).double()
    entropy = math.log(2 * math.pi * math.e)
    error = flow.log_prob(x).std() / 20_000**0.5
    assert abs(-flow.log_prob(x).mean() - entropy) < 5 * error


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"dims": 2}, "histogram is on"),
        ({"image_shape": (1, 2, 2), "base": "normal"}, "leads into"),
        ({"dims": 2, "elementwise": "affine", "base": "uniform"}, "does not lead"),
        ({"image_shape": (1, 2, 2), "bins": 0}, "at least 1"),
        ({"image_shape": (1, 2, 2), "elementwise": "affine", "base": "normal", "alpha": 0.5}, "alpha"),
        ({"dims": 5000, "elementwise": "affine", "base": "normal", "full_affine": True}, "allowed 4096"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        flowzoo.create("cdf", **config)
