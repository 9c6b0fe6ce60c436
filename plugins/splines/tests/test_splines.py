"""Spline flows: the conformance kit, what the presets are, densities in the cube and on the line."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

import pytest
import torch
from flowzoo_splines.bijectors import CubeSigmoid, SplineCoupling
from flowzoo_splines.networks import DenseUNet, OneBlob
from torch import nn

import flowzoo
from flowzoo.bijectors import InvertibleConv1x1
from flowzoo.errors import ConfigError
from flowzoo.registry import get_architecture
from flowzoo.testing import Subject, checks_kind, checks_math, conformance_suite, random_data, randomize
from flowzoo.training.recipe import read_recipe

test_conformance = conformance_suite("splines")


def test_the_published_parameters_are_explained_to_the_last_one() -> None:
    """11,835,054 by the layers of the released configuration; its 1x1 convolutions have biases, these have none."""
    flow = flowzoo.create("splines-cifar10", device="meta")

    def network(channels: int, width: int = 96, blocks: int = 3, bins: int = 4) -> int:
        half, outputs = channels // 2, channels // 2 * (3 * bins - 1)
        block = 2 * (9 * width * width + width) + 2 * 2 * width
        return half * width + width + blocks * block + width * outputs + outputs

    levels = (12, 48, 192)
    convolutions = 8
    released = sum(7 * (network(c) + 2 * c) + convolutions * (c * c + c) for c in levels)
    assert released == 11_835_054
    ours = sum(p.numel() for p in flow.parameters())
    assert ours == 11_833_038
    biases = sum(m.channels for m in flow.modules() if isinstance(m, InvertibleConv1x1))
    assert released - ours == biases == convolutions * sum(levels)


_UNET = {"vector_network": "unet", "features": 32, "one_blob": 8}

PLANES: list[dict[str, Any]] = [
    {"dims": 2, "bins": 5, "steps": 2},
    {"dims": 2, "space": "cube", "spline": "quadratic", "bins": 6, "steps": 2, **_UNET},
    {"dims": 2, "space": "cube", "spline": "linear", "bins": 16, "steps": 2, "one_blob": 16},
]

OTHERS: list[dict[str, Any]] = [
    {"dims": 2, "spline": "quadratic", "bins": 5, "steps": 3},
    {"dims": 3, "spline": "linear", "bins": 5, "steps": 3},
    {"dims": 5, "space": "cube", "bins": 4, "steps": 5},
    {"image_shape": (3, 4, 4), "network": "resnet", "factor_out": False, "steps": 2, "residual_blocks": 1},
    {"image_shape": (1, 4, 4), "logit_alpha": 0.05, "tail_bound": 4.0},
    {"image_shape": (1, 4, 4), "space": "cube", "spline": "linear", "steps": 3},
    {
        "image_shape": (2, 4, 4),
        "space": "cube",
        "spline": "quadratic",
        "histogram": True,
        "pixel_couplings": 2,
    },
]


@pytest.mark.parametrize("config", PLANES, ids=str)
def test_the_density_of_a_plane_integrates_to_the_share_of_samples(config: dict[str, Any]) -> None:
    subject = Subject.variant("splines", **{"features": 8, **config})
    assert checks_kind.density_integrates(subject)


@pytest.mark.parametrize("config", PLANES + OTHERS, ids=str)
def test_every_variant_is_what_it_says(config: dict[str, Any]) -> None:
    subject = Subject.variant("splines", **{"features": 8, **config})
    assert checks_kind.kind_is_said(subject)
    assert checks_kind.log_det_is_jacobian(subject)
    assert checks_math.inverse_float64(subject)
    assert checks_math.reconstruction_exact(subject)
    assert checks_math.gradient_reaches_all(subject)


def test_a_fresh_coupling_is_the_identity() -> None:
    """On the line at x - 1/2, but for the rotations; in the cube altogether, and its density uniform."""
    flow = flowzoo.create("splines-toy").double()
    x = random_data(flow, 10, seed=0)
    torch.testing.assert_close(flow.bits_per_dim(x, seed=0), torch.full((10,), 1.0, dtype=torch.float64))
    vectors = flowzoo.create("splines-points").double()
    v = random_data(vectors, 10, seed=0)
    normal = -0.5 * v.square().sum(1) - math.log(2 * math.pi)
    torch.testing.assert_close(vectors.log_prob(v), normal)


def test_grey_levels_are_equalised_by_the_first_batch() -> None:
    """After initialisation bits/dim are the entropy of the shared histogram, nearly: before any training."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(500, 1, 8, 8, generator=generator) ** 4 * 255).to(torch.uint8)
    flow = flowzoo.create(
        "splines", image_shape=(1, 8, 8), space="cube", histogram=True, features=8, levels=1, steps=1
    )
    assert flow.initialize(x)
    p = torch.bincount(x.flatten().long(), minlength=256) / x.numel()
    entropy = float(-torch.special.xlogy(p, p).sum() / math.log(2))
    assert float(flow.bits_per_dim(x, seed=0).mean()) == pytest.approx(entropy, abs=0.02)


def test_images_at_the_ends_of_the_cube_have_a_density() -> None:
    """255 and the largest noise below 1 round to 256 in float32: the end of the cube, still in it."""
    for seed in range(5):
        flow = randomize(flowzoo.create("splines-toy").eval(), seed, scale=1.0)
        for value, noise in ((0, 0.0), (128, 1 - 2.0**-24)):
            x = torch.full((20, 1, 2, 2), value, dtype=torch.uint8)
            assert flow.log_prob(x, noise=torch.full((20, 1, 2, 2), noise)).isfinite().all()


@torch.no_grad()
def test_every_latent_of_the_cube_has_a_finite_vector() -> None:
    """A uniform sample may be 0, whose logit is infinite."""
    flow = randomize(flowzoo.create("splines-linear-points", features=8).eval(), 0)
    corners = torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert flow.decode(corners).isfinite().all()
    far = torch.tensor([[40.0, -200.0], [1e4, 3.0]])
    assert flow.log_prob(far).isfinite().all()
    assert CubeSigmoid().inverse(torch.tensor([[0.0, 1.0]]))[0].isfinite().all()


def test_vectors_far_outside_the_splines_have_gradients() -> None:
    flow = randomize(flowzoo.create("splines-points", features=8), 0)
    v = torch.tensor([[3.01, -3.01], [1e6, -1e6], [3.0, 0.0]], requires_grad=True)
    flow.log_prob(v).sum().backward()
    assert v.grad is not None and v.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())


def test_a_flow_learns_a_checkerboard_better_than_a_normal_could() -> None:
    """The log-density of a board of 8 of 16 equal squares is that of half its area; a few hundred steps get near it."""
    torch.manual_seed(0)
    flow = flowzoo.create("splines-quadratic-points", features=32, hidden_layers=1, bins=16)

    def board(n: int) -> torch.Tensor:
        cell = torch.randint(4, (n, 1))
        other = 2 * torch.randint(2, (n, 1)) + cell % 2
        return torch.cat((cell, other), dim=1) + torch.rand(n, 2) - 2

    flow.initialize(board(1000))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = -flow.log_prob(board(200)).mean()
        loss.backward()
        optimizer.step()
    nats = -float(flow.log_prob(board(2000)).detach().mean())
    uniform, best = math.log(16), math.log(8)
    assert best - 0.05 < nats < uniform - 0.25


def test_networks_of_the_cube_see_blobs_and_those_of_vectors_can_be_u_shaped() -> None:
    flow = flowzoo.create("splines-quadratic-points")
    couplings = [m for m in flow.modules() if isinstance(m, SplineCoupling)]
    assert len(couplings) == 4 and all(isinstance(c.net, OneBlob) for c in couplings)
    nets = [m for m in flow.modules() if isinstance(m, DenseUNet)]
    widths = [layer.out_features for layer in nets[0].modules() if isinstance(layer, nn.Linear)]
    assert widths == [256, 128, 64, 32, 256, 128, 64, 65]
    blob = OneBlob(16, nn.Identity())
    identity: Any = blob.net
    identity.forward = lambda x, context=None: x
    rows = blob(torch.tensor([[0.46], [0.48], [0.9]]))
    assert rows.argmax(1).tolist() == [7, 7, 14]
    assert (rows[0] - rows[1]).norm() < (rows[0] - rows[2]).norm()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"dims": 1}, "at least 2"),
        ({"dims": 2, "bins": 1}, "bins out of range"),
        ({"dims": 2, "bins": 2000}, "minimum out of range"),
        ({"dims": 2, "one_blob": 32}, "space = cube"),
        ({"dims": 2, "vector_network": "unet", "features": 20, "hidden_layers": 3}, "no multiple of 8"),
        ({"image_shape": (1, 6, 6)}, "squeezed 2 times"),
        ({"image_shape": (1, 4, 4), "histogram": True}, "space = cube"),
        ({"image_shape": (1, 4, 4), "space": "cube", "logit_alpha": 0.05}, "as they come"),
        ({"image_shape": (1, 4, 4), "logit_alpha": 0.5}, "logit_alpha out of range"),
        ({"image_shape": (1, 4, 4), "dropout": 1.0}, "dropout out of range"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        flowzoo.create("splines", **config)


def test_a_presets_recipe_trains_that_preset_on_its_data() -> None:
    """A recipe's name says which preset it trains; one shared by two presets would train the first."""
    presets = get_architecture("splines").presets
    for name, preset in presets.items():
        if preset.recipe is None:
            continue
        package, _, path = preset.recipe.partition(":")
        recipe = read_recipe(str(files(package) / path))
        assert recipe.name == f"splines-{name}"
        assert recipe.data.dataset == (preset.dataset or "")
    assert [name for name, preset in presets.items() if preset.recipe is None] == ["toy"]
