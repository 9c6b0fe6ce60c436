"""Conformance checks of the mathematics: inverse, density, gradients; see also ``checks_kind``."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from flowzoo.densities.dequantization import UniformDequantization
from flowzoo.flow import Flow
from flowzoo.nets.keyed import Keys, keyed_draws
from flowzoo.testing.randomize import random_data, random_images, random_labels
from flowzoo.testing.subject import NotAsked, Subject

NOISE_DRAWS = 256
LATENT_DRAWS = 40_000
BATCH = 4096
"""Images in one call, where a toy model has fewer: a call of few costs as much as one of hundreds."""


def inverse_float64(subject: Subject) -> str:
    """inverse(forward(y)) is y within 1e-9 in float64, and the log-determinants cancel."""
    return _inverse(subject, torch.float64, 1e-9)


def inverse_float32(subject: Subject) -> str:
    """inverse(forward(y)) is y within 1e-4 in float32."""
    return _inverse(subject, torch.float32, 1e-4)


@torch.no_grad()
def _inverse(subject: Subject, dtype: torch.dtype, bound: float) -> str:
    flow = subject.build(seed=1, dtype=dtype)
    y, context = unit_batch(flow, 8, dtype)
    # A numeric direction is as near as it says.
    bound = max(bound, 10 * (flow.bijector.map_kind.tolerance or 0.0))
    with keyed_draws(Keys(seed=1, items=range(8))):
        z, log_det = flow.bijector(y, context)
        back, inverse_log_det = flow.bijector.inverse(z, context)
    error = float((back - y).abs().max())
    assert error <= bound, f"inverse error {error:.1e}, allowed {bound:.0e}"
    mismatch = float((log_det + inverse_log_det).abs().max() / log_det.abs().max().clamp_min(1))
    assert mismatch <= bound, f"log-determinants of the two directions differ by {mismatch:.1e} (relative)"
    return f"error {error:.1e}"


def dequantization_density(subject: Subject) -> str:
    """The noise stays in its bin, and log q equals that of the autograd Jacobian from the noise to u."""
    flow = subject.build(seed=3)
    if not flow.dequantization.fills_bins:
        return NotAsked(f"{flow.data_kind}, no noise that fills a bin")
    x = random_images(flow, 1, seed=3)
    levels = (x >> (8 - flow.n_bits)).to(torch.float64)
    noise = flow.draw_noise(1, generator=_generator(3))
    u, log_q = flow.dequantization(levels, noise)
    assert bool(((u >= 0) & (u <= 1)).all()), "the noise leaves [0, 1]"
    if not flow.dequantization.is_lower_bound:
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
    Learned noise estimates the sum with a skewed error, so it is held to the bound alone, uniform noise to both. An
    estimated log-determinant has no such sum; of vectors see ``checks_kind.density_integrates``.
    """
    flow = subject.build(seed=4)
    if not flow.valid_bpd or not flow.dequantization.fills_bins or flow.log_det_kind != "exact":
        return NotAsked(f"not asked of {flow.data_kind} with a log-determinant that is {flow.log_det_kind}")
    flow = subject.build_toy(seed=4)
    count = 2 ** (flow.n_bits * flow.dims)
    assert count <= 2**16, f"the toy model has {count} possible images; keep it to 65,536"
    learned, learned_error = _mass_of_all_images(flow)
    assert learned <= 1 + 5 * learned_error + 1e-9, (
        f"probabilities of all {count} images sum to {learned:.4f} > 1"
    )
    flow.dequantization = UniformDequantization()
    total, total_error = _mass_of_all_images(flow)
    y = flow.density.sample((LATENT_DRAWS,), generator=_generator(4))
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
    images = (
        (grid * 2 ** (8 - flow.n_bits)).to(flow.draw_noise(0).device, torch.uint8).view(-1, *flow.image_shape)
    )
    draws = max(4, min(NOISE_DRAWS, 2**18 // len(images)))
    at_once = max(1, BATCH // len(images))
    generator, mass = _generator(5), []
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        with torch.no_grad():
            found = flow.log_prob(images.repeat(count, 1, 1, 1), generator=generator)
        mass.append(found.exp().view(count, -1).sum(dim=1))
    each = torch.cat(mass)
    return float(each.mean()), float(each.std() / draws**0.5)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient_reaches_all(subject: Subject) -> str:
    """Every parameter gets a finite gradient that is not zero."""
    flow = subject.build(seed=5).train()
    n = 4 if flow.labels is None else max(4, flow.labels.classes)
    x, y = random_data(flow, n, seed=5), random_labels(flow, n)
    flow.log_prob(x, y, generator=_generator(5)).sum().backward()
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
    x, y = random_data(flow, 6, seed=6), random_labels(flow, 6)
    noise, keys = flow.draw_noise(6, generator=_generator(6)), Keys(seed=6, items=range(6))
    together, alone = flow.log_prob(x, y, noise=noise, keys=keys), []
    for i in range(6):
        label = None if y is None else y[i : i + 1]
        alone.append(flow.log_prob(x[i : i + 1], label, noise=noise[i : i + 1], keys=keys.part(i, i + 1)))
    error = float((together - torch.cat(alone)).abs().max())
    assert error <= 1e-8, f"log_prob depends on the rest of the batch: {error:.1e} nats"
    return f"difference {error:.1e} nats"


@torch.no_grad()
def reconstruction_exact(subject: Subject) -> str:
    """decode(encode(x)) is x (of vectors: nearly), and encode gives one latent (B, D)."""
    flow = subject.build(seed=7)
    x, y = random_data(flow, 8, seed=7), random_labels(flow, 8)
    z = flow.encode(x, y)
    assert z.shape == (8, flow.latent_dims), (
        f"encode gives {tuple(z.shape)}; expected (8, {flow.latent_dims})"
    )
    back = flow.decode(z, y)
    if flow.data_kind == "vectors":
        error = float((back - x).abs().max())
        allowed = max(1e-9, 10 * (flow.bijector.map_kind.tolerance or 0.0))
        assert error <= allowed, f"vectors come back changed by {error:.1e}, allowed {allowed:.0e}"
        return f"error {error:.1e}"
    wrong = int((back != x).sum())
    assert wrong == 0, f"{wrong} of {x.numel()} pixels come back changed"
    return "exact"


@torch.no_grad()
def sampling_deterministic(subject: Subject) -> str:
    """Two generators of one seed give the same samples, whatever the batch size; another seed gives others."""
    flow = subject.build(seed=8)

    def draw(seed: int, batch_size: int) -> Tensor:
        generator = _generator(seed)
        return flow.sample(6, temperature=0.7, generator=generator, batch_size=batch_size)

    first = draw(0, 6)
    kind = torch.uint8 if flow.data_kind == "images" else torch.float64
    assert first.dtype == kind, f"samples are {first.dtype}; expected {kind}"
    assert first.shape == (6, *flow.data_shape), "samples have another shape than the data"
    assert flow.sample(0).shape == (0, *flow.data_shape), "no samples at all have another shape"
    assert torch.equal(first, draw(0, 6)), "the same seed gives other samples"
    apart = float((first.double() - draw(0, 4).double()).abs().max())
    allowed = 0.0 if flow.data_kind == "images" else max(1e-9, 10 * (flow.bijector.map_kind.tolerance or 0.0))
    assert apart <= allowed, f"the samples depend on the batch size: {apart:.1e}, allowed {allowed:.0e}"
    assert not torch.equal(first, draw(1, 6)), "another seed gives the same samples"
    return "same seed, same samples"


def unit_batch(flow: Flow, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """A batch as the bijector takes it, and the context of its labels."""
    generator = _generator(0)
    if flow.data_kind == "vectors":
        v = torch.randn(n, flow.dims, generator=generator, dtype=torch.float64).to(dtype)
    else:
        # Grey levels as a flow sees them: no closer to 0 and 1 than a bin's inside.
        v = torch.rand(n, *flow.data_shape, generator=generator, dtype=torch.float64)
        v = (0.01 + 0.98 * v).to(dtype)
        if not flow.dequantization.fills_bins:
            v = torch.floor(v * 2**flow.n_bits) / 2**flow.n_bits
    v = v.to(flow.draw_noise(0).device)
    if flow.augmentation is not None:
        v, _ = flow.augmentation(v, central=True)
    return v, flow.context_of(random_labels(flow, n), n)
