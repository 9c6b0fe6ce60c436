"""f-VAE: the bound against known densities, what the parts are given, parameter counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from flowzoo_fvae.bijectors import DataAndExtra, SharedScaleAugmentation, SharedScaleCoupling
from flowzoo_fvae.networks import Block, Decoder, Encoder
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

import flowzoo
from flowzoo.bijectors import AffineCoupling, Chain
from flowzoo.errors import ConfigError
from flowzoo.flow import Flow
from flowzoo.nets.keyed import Keys, keyed_draws
from flowzoo.testing import Subject, checks_kind, checks_math, conformance_suite, random_images, randomize

test_conformance = conformance_suite("fvae")

VARIANTS: list[dict[str, Any]] = [
    {"encoder_scale": "element", "decoder": "element", "normalization": "none"},
    {"decoder": "mixture", "preprocessing": "logit", "alpha": 0.05, "dequantization": "variational"},
    {"rounds": 2, "coupling": "affine", "permutation": "dense"},
    {"widths": (), "latent_channels": 0, "image_shape": (3, 8, 8), "output": "linear"},
]


class Linear(nn.Module):
    """x W^T + b, whatever the context."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return x @ self.weight.T + self.bias


def principal_components(dims: int, extra: int, *, encoder_error: float) -> tuple[Flow, MultivariateNormal]:
    """x = W e + b + t r with normal e and r, its density, and the best linear encoder, but for an error."""
    torch.manual_seed(dims)
    weight, bias = torch.randn(dims, extra, dtype=torch.float64), torch.randn(dims, dtype=torch.float64)
    log_t = -0.5
    parts = DataAndExtra(data_shape=(dims,), extra_shape=(extra,))
    decode = SharedScaleCoupling(parts.complement(), Linear(weight, bias))
    # The posterior of e: covariance (1 + W'W / t^2)^-1, mean (that) W'(x - b) / t^2.
    variance = math.exp(2 * log_t)
    covariance = torch.linalg.inv(torch.eye(extra, dtype=torch.float64) + weight.T @ weight / variance)
    back = covariance @ weight.T / variance
    encode = SharedScaleAugmentation(Linear(back + encoder_error, -back @ bias), extra)
    flow = Flow(dims=dims, bijector=Chain(decode), augmentation=encode).double().eval()
    with torch.no_grad():
        decode.log_scale.fill_(log_t)
        encode.log_scale.fill_(0.5 * float(covariance.diagonal().log().mean()))
    marginal = weight @ weight.T + variance * torch.eye(dims, dtype=torch.float64)
    return flow, MultivariateNormal(bias, marginal)


def test_with_the_true_posterior_the_bound_is_the_density() -> None:
    flow, density = principal_components(3, 1, encoder_error=0.0)
    x = density.sample((50,))
    torch.testing.assert_close(flow.log_prob(x), density.log_prob(x), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(flow.log_prob(x, samples=3), density.log_prob(x), atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_importance_samples_tighten_the_bound_to_the_density() -> None:
    flow, density = principal_components(4, 2, encoder_error=0.03)
    x = density.sample((40,))
    generator = torch.Generator().manual_seed(0)
    exact = density.log_prob(x).mean()
    gaps = [float(exact - flow.log_prob(x, samples=k, generator=generator).mean()) for k in (1, 10, 300)]
    assert gaps[0] > 0.05
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]
    assert gaps[2] == pytest.approx(0, abs=0.03)


def build(seed: int, dtype: torch.dtype = torch.float64, **config: Any) -> Flow:
    torch.manual_seed(seed)
    return randomize(flowzoo.create("fvae-tiny", **config).to(dtype).eval(), seed)


@torch.no_grad()
def test_the_bound_is_that_of_a_variational_autoencoder() -> None:
    """log p(x|e) + log p(e) - log q(e|x), each written with torch's distributions."""
    flow, v = build(0), torch.rand(5, 1, 8, 8, dtype=torch.float64)
    keys, augmentation = Keys(seed=1, items=range(5)), flow.augmentation
    assert isinstance(augmentation, SharedScaleAugmentation)
    decode, prior = flow.bijector.bijectors[1], flow.bijector.bijectors[2].extra
    with keyed_draws(keys):
        e = augmentation(v)[0][:, 64:]
    q = Normal(augmentation.encoder(v), augmentation.log_scale.exp())
    x = 2 * v - 1
    likelihood = Normal(decode.net(e.view(5, 4, 2, 2)), decode.log_scale.exp())
    z, log_det = prior(e.view(5, 4, 2, 2))
    expected = likelihood.log_prob(x).flatten(1).sum(1) + 64 * math.log(2)
    expected += Normal(0.0, 1.0).log_prob(z).sum(1) + log_det - q.log_prob(e).sum(1)
    with keyed_draws(keys):
        torch.testing.assert_close(flow.log_density(v), expected)


@torch.no_grad()
def test_more_samples_give_a_higher_bound_on_images() -> None:
    flow = build(0)
    assert flow.is_lower_bound and flow.valid_bpd
    x = random_images(flow, 40, seed=0)
    found = [float(flow.bits_per_dim(x, samples=k, seed=1).mean()) for k in (1, 4, 16)]
    assert found[0] > found[1] > found[2]


def test_gradients_reach_encoder_decoder_and_prior() -> None:
    flow = build(0).train()
    flow.log_prob(random_images(flow, 4, seed=0)).sum().backward()
    sizes = {name: float(p.grad.abs().sum()) for name, p in flow.named_parameters() if p.grad is not None}
    for part in (
        "augmentation.encoder",
        "augmentation.log_scale",
        "bijectors.1.net",
        "bijectors.1.log_scale",
    ):
        assert any(part in name and size > 0 for name, size in sizes.items()), part
    assert all(size > 0 for name, size in sizes.items() if "bijectors.2.extra" in name)


def test_samples_ask_nothing_of_the_encoder() -> None:
    flow, asked = build(0), []
    assert flow.augmentation is not None
    flow.augmentation.encoder.register_forward_hook(lambda *_: asked.append(1))
    flow.sample(3, seed=0)
    assert not asked
    flow.log_prob(random_images(flow, 3, seed=0))
    assert asked


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_variant_is_what_it_says(config: dict[str, Any]) -> None:
    subject = Subject.variant("fvae-tiny", **config)
    assert checks_kind.kind_is_said(subject)
    assert checks_math.inverse_float64(subject)
    assert checks_math.reconstruction_exact(subject) == "exact"
    flow = subject.build(seed=3, dtype=torch.float32)
    x = random_images(flow, 8, seed=3)
    assert torch.equal(flow.reconstruct(x), x)


@pytest.mark.parametrize("config", VARIANTS[:3], ids=str)
def test_log_determinants_of_variants(config: dict[str, Any]) -> None:
    subject = Subject.variant("fvae-tiny", **{"image_shape": (1, 4, 4), "levels": 1, **config})
    assert checks_kind.log_det_is_jacobian(subject)


def test_a_second_round_changes_e_by_what_is_left_of_the_image() -> None:
    flow = build(0, rounds=2)
    kinds = [type(part).__name__ for part in flow.bijector]
    assert kinds == ["Both", *["SharedScaleCoupling"] * 3, "Both"]
    encode = flow.bijector.bijectors[2]
    w = torch.randn(3, flow.latent_dims, dtype=torch.float64)
    changed = encode(w)[0] != w
    assert not changed[:, : flow.dims].any() and changed[:, flow.dims :].all()


def test_fresh_networks_are_squeezes() -> None:
    x = torch.rand(2, 3, 8, 8)
    encoder = Encoder(3, (12, 48), 48, 2, "batch", pixels=True).eval()
    decoder = Decoder(48, (12, 48), 3, 2, "batch", tanh_channels=3).eval()
    torch.testing.assert_close(decoder(encoder(x)), torch.tanh(2 * x - 1))
    block = Block(4, "none")
    assert torch.equal(block(x[:, :1].expand(-1, 4, -1, -1)), x[:, :1].expand(-1, 4, -1, -1))


def test_a_mixture_begins_with_its_components_apart() -> None:
    flow = flowzoo.create("fvae-tiny", decoder="mixture", components=3)
    decode = flow.bijector.bijectors[1]
    _, _, mixture = decode._unpack(decode.net(torch.zeros(1, *decode.partition.extra_shape)))
    torch.testing.assert_close(mixture.means[0, :, 0, 0, 0], torch.tensor([-4.0, 0.0, 4.0]))
    torch.testing.assert_close(mixture.log_weights.exp(), torch.full_like(mixture.log_weights, 1 / 3))


def test_an_elementwise_decoder_is_a_normal_distribution_for_each_pixel() -> None:
    decode = build(0, decoder="element").bijector.bijectors[1]
    assert isinstance(decode, AffineCoupling)
    x, e = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.randn(3, 4, 2, 2, dtype=torch.float64)
    shift, log_rate = decode.net(e).chunk(2, dim=1)
    z, log_det = decode(decode.partition.merge(e, x))
    expected = Normal(-shift, torch.exp(-log_rate)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(Normal(0.0, 1.0).log_prob(z[:, :64]).sum(1) + log_det, expected)


def test_the_authors_model_has_its_parameters() -> None:
    """All but the biases of the convolutions before a batch norm, which takes them away again."""

    def convolution(a: int, b: int, kernel: int) -> int:
        return a * b * kernel**2 + b

    widths, halves, hidden = (12, 48, 192), (96, 192, 384, 768), 256
    blocks = sum(12 * (convolution(c, c, 3) + 2 * c + convolution(c, c, 1)) for c in widths)
    couplings = sum(
        12 * (4 * h + convolution(h, hidden, 3) + convolution(hidden, hidden, 1) + convolution(hidden, h, 3))
        for h in halves
    )
    priors = sum(convolution(h, 2 * h, 3) for h in halves[:3])
    authors = 2 * blocks + 2 + couplings + priors + 4 * halves[-1]
    flow = flowzoo.create("fvae-celebahq128", device="meta")
    assert sum(p.numel() for p in flow.parameters()) == authors - 2 * 12 * sum(widths)
    assert flow.latent_dims == 2 * flow.dims == 2 * 3 * 128**2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"encoder_levels": 4, "widths": ()}, "cannot be halved 4 times"),
        ({"levels": 3}, "cannot be halved 2 times"),
        ({"latent_channels": 3}, "even number"),
        ({"widths": (4,)}, "one per encoder level"),
        ({"depth": 0}, "at least 1"),
        ({"blocks": -1}, "must not be negative"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        flowzoo.create("fvae-tiny", **config)
