"""Jet: couplings, the ways to part tokens, parameter counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flowzoo_jet.bijectors import ViTCoupling, spatial_order
from flowzoo_jet.model import SPATIAL
from flowzoo_jet.vit import Conditioner

import flowzoo
from flowzoo.errors import ConfigError
from flowzoo.testing import Subject, checks_kind, conformance_suite

test_conformance = conformance_suite("jet")


def coupling(*, spatial: bool, classes: int = 0) -> ViTCoupling:
    torch.manual_seed(0)
    net = Conditioner(6, 2, channels=8, heads=2, layers=1, classes=classes)
    order = spatial_order("checkerboard", (2, 3), swap=False) if spatial else [2, 0, 3, 1]
    found = ViTCoupling(net, torch.tensor(order), spatial=spatial).double()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return found


def test_a_fresh_coupling_is_the_identity() -> None:
    net = Conditioner(6, 2, channels=8, heads=2, layers=1, classes=0)
    x = torch.randn(3, 6, 4)
    z, log_det = ViTCoupling(net, torch.randperm(4), spatial=False)(x)
    torch.testing.assert_close(z, x)
    torch.testing.assert_close(log_det, torch.zeros(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("spatial", [False, True])
def test_one_half_stays_and_scales_are_bounded(spatial: bool) -> None:
    layer, x = coupling(spatial=spatial), torch.randn(3, 6, 4, dtype=torch.float64)
    z, log_det = layer(x)
    same = (z == x).all(0)
    kept = layer.order[: len(layer.order) // 2]
    expected = torch.zeros(6, 4, dtype=torch.bool)
    if spatial:
        expected[kept] = True
    else:
        expected[:, kept] = True
    assert torch.equal(same, expected)
    assert (log_det < 12 * torch.tensor(2.0).log()).all()
    back, inverse_log_det = layer.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_log_det, -log_det)


@pytest.mark.parametrize("grid", [(2, 2), (4, 6), (3, 4), (4, 3)])
@pytest.mark.parametrize(("kind", "swap"), SPATIAL)
def test_tokens_are_parted_in_halves_and_swapped(kind: Any, swap: bool, grid: tuple[int, int]) -> None:
    order = spatial_order(kind, grid, swap=swap)
    half = len(order) // 2
    assert sorted(order) == list(range(grid[0] * grid[1]))
    other = spatial_order(kind, grid, swap=not swap)
    assert set(order[:half]) == set(other[half:])


def test_patterns_are_what_their_names_say() -> None:
    assert spatial_order("columns", (2, 4), swap=False)[:4] == [0, 2, 4, 6]
    assert spatial_order("rows", (4, 2), swap=False)[:4] == [0, 1, 4, 5]
    assert spatial_order("checkerboard", (2, 2), swap=True) == [1, 2, 0, 3]


def test_permutations_are_in_the_config_and_in_the_weights() -> None:
    def orders(**config: Any) -> list[list[int]]:
        flow = flowzoo.create("jet-tiny", **config)
        return [m.order.tolist() for m in flow.modules() if isinstance(m, ViTCoupling)]

    torch.manual_seed(1)
    first = orders()
    torch.manual_seed(2)
    assert first == orders() != orders(permutation_seed=1)
    assert any("order" in name for name in flowzoo.create("jet-tiny").state_dict())


def test_the_authors_model_has_its_parameters() -> None:
    def count(name: str) -> int:
        return sum(p.numel() for p in flowzoo.create(name, device="meta").parameters())

    c, tokens, d = 512, 256, 24
    layer = 4 * (c * c + c) + 2 * 2 * c + (c * 4 * c + 4 * c) + (4 * c * c + c)

    def known(couplings: int, layers: int) -> int:
        return couplings * (d * c + c + tokens * c + layers * layer + 2 * c + c * 2 * d + 2 * d)

    assert count("jet-imagenet64") == known(32, 2)
    assert count("jet-imagenet64-large") == known(64, 5)


VARIANTS: list[dict[str, Any]] = [
    {"classes": 3},
    {"kinds": ("spatial",)},
    {"scale_bound": 3.0},
    {"marginals": "histogram"},
]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_variant_is_what_it_says(config: dict[str, Any]) -> None:
    subject = Subject.variant("jet-tiny", **{"image_shape": (1, 4, 4), **config})
    assert checks_kind.kind_is_said(subject)
    assert checks_kind.log_det_is_jacobian(subject)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"patch": 3}, "whole number of patches"),
        ({"image_shape": (1, 6, 6), "patch": 2}, "tokens cannot be halved"),
        ({"image_shape": (1, 9, 9), "patch": 3}, "values, which cannot"),
        ({"heads": 3}, "multiple of heads"),
        ({"kinds": ()}, "kinds is empty"),
        ({"classes": 1}, "at least 2"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        flowzoo.create("jet-tiny", **config)
