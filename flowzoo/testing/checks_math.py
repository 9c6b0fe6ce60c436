"""Conformance checks of the mathematics: inverse, log-determinant, density, gradients."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from flowzoo.densities.dequantization import UniformDequantization
from flowzoo.flow import Flow
from flowzoo.testing.randomize import random_images
from flowzoo.testing.subject import Subject

NOISE_DRAWS = 256
LATENT_DRAWS = 40_000
ROUNDING = 1e-9
"""How far a sum of probabilities that are exact may be from 1; noise has no error to allow for it there."""


def inverse_float64(subject: Subject) -> str:
    """inverse(forward(y)) is y within 1e-9 in float64, and the log-determinants cancel."""
    return _inverse(subject, torch.float64, 1e-9)


def inverse_float32(subject: Subject) -> str:
    """inverse(forward(y)) is y within 1e-4 in float32."""
    return _inverse(subject, torch.float32, 1e-4)


@torch.no_grad()
def _inverse(subject: Subject, dtype: torch.dtype, bound: float) -> str:
    flow = subject.build(seed=1, dtype=dtype)
    y = _unit_batch(flow, 8, dtype)
    z, log_det = flow.bijector(y)
    back, inverse_log_det = flow.bijector.inverse(z)
    error = float((back - y).abs().max())
    assert error <= bound, f"inverse error {error:.1e}, allowed {bound:.0e}"
    mismatch = float((log_det + inverse_log_det).abs().max() / log_det.abs().max().clamp_min(1))
    assert mismatch <= bound, f"log-determinants of the two directions differ by {mismatch:.1e} (relative)"
    return f"error {error:.1e}"


def log_det_is_jacobian(subject: Subject) -> str:
    """log_det equals log|det| of the autograd Jacobian within 1e-8 (float64)."""
    flow = subject.build(seed=2)
    y = _unit_batch(flow, 2, torch.float64)
    _, log_det = flow.bijector(y)
    errors = []
    for item, claimed in zip(y, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow.bijector(v[None])[0][0], item)
        true = torch.linalg.slogdet(jacobian.reshape(flow.dims, flow.dims)).logabsdet
        errors.append(float((true - claimed).detach().abs()))
    assert max(errors) <= 1e-8, f"log_det is off by {max(errors):.1e} nats, allowed 1e-8"
    return f"error {max(errors):.1e} nats"


def dequantization_density(subject: Subject) -> str:
    """The noise stays in its bin, and log q equals that of the autograd Jacobian from the noise to u."""
    flow = subject.build(seed=3)
    x = random_images(flow, 1, seed=3)
    levels = (x >> (8 - flow.n_bits)).to(torch.float64)
    noise = flow.draw_noise(1, generator=_generator(3))
    u, log_q = flow.dequantization(levels, noise)
    assert bool(((u >= 0) & (u <= 1)).all()), "the noise leaves [0, 1]"
    if not flow.is_lower_bound:
        assert float(log_q.abs().max()) == 0.0, "uniform noise has log q = 0"
        return "uniform"
    jacobian = torch.autograd.functional.jacobian(lambda e: flow.dequantization(levels, e)[0], noise)
    log_det = torch.linalg.slogdet(jacobian.reshape(flow.dims, flow.dims)).logabsdet
    log_normal = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum()
    error = float((log_q[0] - (log_normal - log_det)).detach().abs())
    assert error <= 1e-8, f"log q is off by {error:.1e} nats, allowed 1e-8"
    return f"log q error {error:.1e} nats"


@torch.no_grad()
def probabilities_sum(subject: Subject) -> str:
    """Over all images of a toy model the probabilities sum to the latent's mass on the unit cube, at most 1.

    The mass is known a second way: it is the share of the model's own samples, before quantization, in the cube.
    Learned noise estimates the sum with a skewed error, so it is held to the bound alone, uniform noise to both.
    """
    flow = subject.build_toy(seed=4)
    count = 2 ** (flow.n_bits * flow.dims)
    assert count <= 2**16, f"the toy model has {count} possible images; keep it to 65,536"
    learned, learned_error = _mass_of_all_images(flow)
    assert learned <= 1 + 5 * learned_error + ROUNDING, f"probabilities of all {count} images sum to {learned:.4f} > 1"
    flow.dequantization = UniformDequantization()
    total, total_error = _mass_of_all_images(flow)
    z = flow.base.sample(
        LATENT_DRAWS, flow.dims, generator=_generator(4), device=torch.device("cpu"), dtype=torch.float64
    )
    y, _ = flow.bijector.inverse(z)
    inside = ((y >= 0) & (y <= 1)).flatten(1).all(dim=1).double().mean()
    share, share_error = float(inside), float((inside * (1 - inside) / LATENT_DRAWS).sqrt())
    # Three draws of slack keep an impossible share of exactly 0 or 1 from claiming to be error-free.
    tolerance = 5 * (total_error + share_error) + 3 / LATENT_DRAWS
    assert abs(total - share) <= tolerance, (
        f"probabilities of all {count} images sum to {total:.4f}, but {share:.4f} of the model's own samples are "
        f"images (allowed difference {tolerance:.4f})"
    )
    return f"{count} images sum to {total:.4f}, samples in the cube {share:.4f}"


def _mass_of_all_images(flow: Flow) -> tuple[float, float]:
    """The sum of the probabilities of all images and its standard error, by Monte Carlo over the noise."""
    grid = torch.tensor(list(itertools.product(range(2**flow.n_bits), repeat=flow.dims)))
    images = (grid * 2 ** (8 - flow.n_bits)).to(torch.uint8).view(-1, *flow.image_shape)
    draws = max(4, min(NOISE_DRAWS, 2**18 // len(images)))
    generator = _generator(5)
    mass = torch.stack([flow.log_prob(images, generator=generator).exp().sum() for _ in range(draws)])
    return float(mass.mean()), float(mass.std() / draws**0.5)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient_reaches_all(subject: Subject) -> str:
    """Every parameter gets a finite gradient that is not zero."""
    flow = subject.build(seed=5).train()
    flow.log_prob(random_images(flow, 4, seed=5), generator=_generator(5)).sum().backward()
    missing, bad = [], []
    for name, parameter in flow.named_parameters():
        gradient = parameter.grad
        if gradient is None or not bool((gradient != 0).any()):
            missing.append(name)
        elif not bool(torch.isfinite(gradient).all()):
            bad.append(name)
    assert not missing, f"no gradient reaches {', '.join(missing[:5])}"
    assert not bad, f"the gradient of {', '.join(bad[:5])} is not finite"
    return f"{sum(1 for _ in flow.parameters())} tensors"


@torch.no_grad()
def batch_equals_items(subject: Subject) -> str:
    """In eval mode a batch's log_prob equals that of its items one by one."""
    flow = subject.build(seed=6)
    x = random_images(flow, 6, seed=6)
    noise = flow.draw_noise(6, generator=_generator(6))
    together = flow.log_prob(x, noise=noise)
    alone = torch.cat([flow.log_prob(x[i : i + 1], noise=noise[i : i + 1]) for i in range(6)])
    error = float((together - alone).abs().max())
    assert error <= 1e-8, f"log_prob depends on the rest of the batch: {error:.1e} nats"
    return f"difference {error:.1e} nats"


@torch.no_grad()
def reconstruction_exact(subject: Subject) -> str:
    """decode(encode(x)) is x, and encode gives one latent (B, D)."""
    flow = subject.build(seed=7)
    x = random_images(flow, 8, seed=7)
    z = flow.encode(x)
    assert z.shape == (8, flow.dims), f"encode gives {tuple(z.shape)}; expected (8, {flow.dims})"
    wrong = int((flow.decode(z) != x).sum())
    assert wrong == 0, f"{wrong} of {x.numel()} pixels come back changed"
    return "exact"


@torch.no_grad()
def sampling_deterministic(subject: Subject) -> str:
    """Two generators of one seed give the same images, whatever the batch size; another seed gives others."""
    flow = subject.build(seed=8)

    def draw(seed: int, batch_size: int) -> Tensor:
        generator = _generator(seed)
        return flow.sample(6, temperature=0.7, generator=generator, batch_size=batch_size)

    first = draw(0, 6)
    assert first.dtype == torch.uint8, "samples are not uint8"
    assert first.shape == (6, *flow.image_shape), "samples have another shape than the images"
    assert flow.sample(0).shape == (0, *flow.image_shape), "no samples at all have another shape"
    assert torch.equal(first, draw(0, 6)), "the same seed gives other images"
    assert torch.equal(first, draw(0, 4)), "the images depend on the batch size"
    assert not torch.equal(first, draw(1, 6)), "another seed gives the same images"
    return "same seed, same images"


def _unit_batch(flow: Flow, n: int, dtype: torch.dtype) -> Tensor:
    generator = _generator(0)
    # Grey levels as a flow sees them: no closer to 0 and 1 than a bin's inside.
    return (0.01 + 0.98 * torch.rand(n, *flow.image_shape, generator=generator, dtype=torch.float64)).to(
        dtype
    )
