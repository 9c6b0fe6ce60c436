"""TarFlow: causality, cached and Jacobi inverses, guidance, denoising, parameter counts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from flowzoo_tarflow.bijectors import Guidance, TransformerBlock, guided
from flowzoo_tarflow.model import denoise, sample_guided, to_images
from flowzoo_tarflow.transformer import CausalTransformer

import flowzoo
from flowzoo.bijectors import residuals
from flowzoo.errors import ConfigError, InputError
from flowzoo.testing import Subject, checks_kind, conformance_suite, randomize

test_conformance = conformance_suite("tarflow")


def net(classes: int = 0) -> CausalTransformer:
    torch.manual_seed(0)
    found = CausalTransformer(
        7, 3, 6, channels=8, head_channels=4, layers=2, expansion=2, classes=classes
    ).double()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return found


def block(**options: Any) -> TransformerBlock:
    return TransformerBlock(net(options.pop("classes", 0)), **{"flip": True, "scale": "soft-clip", **options})


def test_a_token_sees_exactly_those_before_it() -> None:
    network = net()
    jacobian = torch.autograd.functional.jacobian(
        lambda x: network(x[None])[0].sum(-1), torch.randn(7, 3).double()
    )
    sees = (jacobian != 0).any(-1)
    assert torch.equal(sees, torch.ones(7, 7).tril(-1).bool())


def test_a_block_begins_as_the_identity_and_leaves_its_first_token() -> None:
    fresh = CausalTransformer(5, 2, 4, channels=8, head_channels=8, layers=1, expansion=2, classes=0)
    x = torch.randn(3, 5, 2)
    z, log_det = TransformerBlock(fresh, flip=True)(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(3))
    moved = block(flip=True)
    y = torch.randn(2, 7, 3, dtype=torch.float64)
    assert torch.equal(moved(y)[0][:, -1], y[:, -1])
    assert not torch.equal(moved(y)[0][:, 0], y[:, 0])


@pytest.mark.parametrize("scale", ["unbounded", "soft-clip", "softplus"])
@pytest.mark.parametrize("flip", [False, True])
def test_all_ways_to_the_inverse_agree(flip: bool, scale: Any) -> None:
    z = torch.randn(4, 7, 3, dtype=torch.float64)
    recorded, log_det = block(flip=flip, scale=scale).inverse(z)
    torch.testing.assert_close(block(flip=flip, scale=scale)(recorded)[0], z)
    with torch.no_grad():
        for sampler, size in (("sequential", 1), ("jacobi", 1), ("jacobi", 3), ("jacobi", 99)):
            other = block(flip=flip, scale=scale, sampler=sampler, jacobi_block=size)
            with residuals() as found:
                x, other_log_det = other.inverse(z)
            torch.testing.assert_close(x, recorded, atol=1e-9, rtol=1e-9)
            torch.testing.assert_close(other_log_det, log_det, atol=1e-9, rtol=1e-9)
            assert found.count == (sampler == "jacobi")
            assert other.map_kind.inverse == ("numeric" if sampler == "jacobi" else "sequential")


def test_keys_and_values_are_computed_once_a_token() -> None:
    moved, widths = block(), []
    moved.net.proj_in.register_forward_hook(lambda _, inputs, output: widths.append(inputs[0].shape[1]))
    with torch.no_grad():
        moved.inverse(torch.randn(2, 7, 3, dtype=torch.float64))
    # Six tokens one by one, and one whole pass for the log-determinant.
    assert widths == [1] * 6 + [6]


def test_gradients_of_samples() -> None:
    moved, z = block(), torch.randn(1, 7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: moved.inverse(z)[0], (z,))


def test_the_papers_model_has_its_parameters() -> None:
    def count(name: str) -> int:
        return sum(p.numel() for p in flowzoo.create(name, device="meta").parameters())

    c, t, d = 768, 32 * 32, 12
    layer = 2 * 2 * c + (c * 3 * c + 3 * c) + (c * c + c) + (c * 4 * c + 4 * c) + (4 * c * c + c)
    whole = 8 * (d * c + c + t * c + 8 * layer + c * 2 * d + 2 * d)
    assert count("tarflow-imagenet64") == whole
    assert abs(whole - 460_000_000) < 0.01 * 460_000_000
    assert 400_000 < count("tarflow-mnist") - 784 * 256 < 450_000, "besides the histograms"


def conditional(**options: Any) -> flowzoo.Flow:
    torch.manual_seed(0)
    flow = flowzoo.create("tarflow-tiny", classes=3, **options)
    return randomize(flow.double().eval(), 2, scale=0.3)


def test_no_label_is_the_mean_embedding() -> None:
    flow = conditional()
    x = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    noise = torch.rand(x.shape, dtype=torch.float64)
    without, labelled = flow.log_prob(x, noise=noise), flow.log_prob(x, 1, noise=noise)
    assert not torch.allclose(without, labelled)
    for part in flow.modules():
        if isinstance(part, CausalTransformer) and part.class_embedding is not None:
            part.class_embedding.data[:] = part.class_embedding.data.mean(0)
    torch.testing.assert_close(flow.log_prob(x, 2, noise=noise), without)


@pytest.mark.parametrize("kind", ["linear", "distribution"])
def test_guidance_of_weight_zero_is_plain_sampling(kind: Any) -> None:
    flow, y = conditional(), torch.tensor([0, 2, 1])
    plain = flow.density.sample((3,), y, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    found = sample_guided(flow, 3, y, Guidance(0.0, kind), generator=generator)
    torch.testing.assert_close(found, plain, atol=1e-9, rtol=1e-9)
    other = sample_guided(flow, 3, y, Guidance(1.0, kind), generator=torch.Generator().manual_seed(1))
    assert other.isfinite().all()
    assert not torch.allclose(other, plain, atol=1e-3)


def test_guidance_in_distribution_space_is_a_product_of_normals() -> None:
    a, b, a_0, b_0 = torch.tensor([-0.5]), torch.tensor([0.3]), torch.tensor([0.1]), torch.tensor([-0.2])
    w = 1.7
    log_scale, shift = guided(a, b, a_0, b_0, w, "distribution")
    # Where the label narrows, s = v / v_0, and the product has precision (1 + w) / v - w / v_0.
    precision = (1 + w) * torch.exp(-2 * a) - w * torch.exp(-2 * a_0)
    torch.testing.assert_close(torch.exp(-2 * log_scale), precision)
    mean = ((1 + w) * torch.exp(-2 * a) * b - w * torch.exp(-2 * a_0) * b_0) / precision
    torch.testing.assert_close(shift, mean)


def test_guidance_never_explodes_where_the_label_widens() -> None:
    log_scale, shift = guided(*(torch.tensor([v]) for v in (2.0, 0.0, -3.0, 1.0)), 5.0, "distribution")
    assert log_scale.item() == pytest.approx(2.0)
    assert shift.isfinite().all()


def test_gaussian_noise_is_a_density_without_bits() -> None:
    flow = conditional(noise="gaussian", noise_std=0.1)
    assert not flow.valid_bpd
    x = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    with pytest.raises(InputError, match="no bits per dimension"):
        flow.bits_per_dim(x)
    noise = torch.randn(x.shape, dtype=torch.float64)
    v = (x + 0.5) / 256 + 0.05 * noise
    torch.testing.assert_close(flow.log_prob(x, noise=noise), flow.density.log_prob(v))


def test_denoising_is_the_posterior_mean() -> None:
    """For an untrained flow v is N(1/2, 1/4): with noise variance s^2 of it, E[clean|v] is v + s^2 score, exactly."""
    flow = flowzoo.create("tarflow-tiny", noise="gaussian", noise_std=0.6).double().eval()
    v = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    s2, total = 0.3**2, 0.25
    known = v + s2 * (0.5 - v) / total
    torch.testing.assert_close(denoise(flow, v), known)
    assert to_images(flow, v).dtype == torch.uint8
    with pytest.raises(InputError, match="Gaussian noise"):
        denoise(flowzoo.create("tarflow-tiny"), v)


VARIANTS: list[dict[str, Any]] = [
    {"scale": scale, "sampler": sampler}
    for scale, sampler in itertools.product(("unbounded", "softplus"), ("sequential", "jacobi"))
] + [{"classes": 3}, {"patch": 2}, {"blocks": 1}, {"marginals": "histogram"}]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_variant_is_what_it_says(config: dict[str, Any]) -> None:
    subject = Subject.variant("tarflow-toy", **config)
    assert checks_kind.kind_is_said(subject)
    assert checks_kind.log_det_is_jacobian(subject)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"patch": 3}, "whole number of patches"),
        ({"head_channels": 3}, "multiple of head_channels"),
        ({"classes": 1}, "at least 2"),
        ({"layers": 0}, "layers is 0"),
        ({"noise": "gaussian", "marginals": "histogram"}, "is of grey levels"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        flowzoo.create("tarflow-tiny", **config)


def test_guidance_needs_labels() -> None:
    flow = flowzoo.create("tarflow-tiny").eval()
    with pytest.raises(InputError, match="has none"):
        sample_guided(flow, 2, 0, Guidance(1.0))
    with pytest.raises(InputError, match="needs a model with labels"):
        block().guided_inverse(torch.zeros(1, 7, 3).double(), torch.ones(1, 1).double(), Guidance(1.0))
