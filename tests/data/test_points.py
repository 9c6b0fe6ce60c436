"""The sets points:NAME: the same bits everywhere, drawn from the density that is claimed, with its entropy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from flowzoo.data import VectorSet, get_dataset, list_datasets
from flowzoo.data.catalogue_points import POINTS, SIZES
from flowzoo.data.point_densities import DENSITIES, Curve, NoisyCurves, Twisted
from flowzoo.data.reproducible import cos_sin, keyed_normals, keyed_uniforms, logarithm
from flowzoo.errors import InputError

NAMES = [dataset.options["density"] for dataset in POINTS]


def load(name: str, split: str = "test") -> VectorSet:
    found = get_dataset(f"points:{name}").load(split)
    assert isinstance(found, VectorSet)
    return found


def test_elementary_functions_are_accurate() -> None:
    x = keyed_uniforms((1,), 20_000) + 2.0**-60
    np.testing.assert_allclose(logarithm(x), np.log(x), rtol=2e-15)
    turns = 8 * keyed_uniforms((2,), 20_000) - 4
    cos, sin = cos_sin(turns)
    np.testing.assert_allclose(cos, np.cos(2 * np.pi * turns), atol=1e-14)
    np.testing.assert_allclose(sin, np.sin(2 * np.pi * turns), atol=1e-14)


def test_normals_are_normal_and_independent() -> None:
    z = keyed_normals((3,), 40_000, 3)
    assert np.abs(z.mean(0)).max() < 4 / math.sqrt(len(z))
    assert np.abs(np.cov(z.T) - np.eye(3)).max() < 4 * math.sqrt(2 / len(z))
    assert np.abs((z**4).mean(0) - 3).max() < 4 * math.sqrt(96 / len(z))
    below = np.searchsorted(np.sort(z[:, 0]), [-1.959964, 0, 1.959964]) / len(z)
    np.testing.assert_allclose(below, [0.025, 0.5, 0.975], atol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_every_split_has_the_bits_on_record(name: str) -> None:
    dataset = get_dataset(f"points:{name}")
    for split, size in SIZES.items():
        found = load(name, split)  # which compares with the digest on record
        assert found.shape == (size, dataset.dims)
        assert found.digest == dataset.split(split).sha256
    assert len({dataset.split(split).sha256 for split in SIZES}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_points_follow_the_density(name: str) -> None:
    """Pearson's statistic of counts in cells against the density's integral over each."""
    train, density = load(name, "valid"), DENSITIES[name]
    side = {1: 60, 2: 24}[density.dims]
    fine = {1: 40, 2: 6 if name == "checkerboard" else 3}[density.dims]
    axes, area = [], 1.0
    for low, high in density.box:
        step = (high - low) / (side * fine)
        axes.append(low + step * (torch.arange(side * fine, dtype=torch.float64) + 0.5))
        area *= step
    values = density.log_prob(torch.cartesian_prod(*axes).reshape(-1, density.dims)).exp() * area
    shares = values.reshape([side, fine] * density.dims)
    shares = shares.sum((1, 3)) if density.dims == 2 else shares.sum(1)
    counts, _ = torch.histogramdd(
        train.vectors.double(), side, range=[edge for bounds in density.box for edge in bounds]
    )
    expected = shares * len(train)
    rest = len(train) - float(counts.sum())
    assert float(values.sum()) == pytest.approx(1, abs=2e-3)
    assert rest < 30
    full = expected > 5
    statistic = float(((counts - expected).square() / expected)[full].sum())
    cells = int(full.sum())
    assert abs(statistic - cells) < 5 * math.sqrt(2 * cells)


@pytest.mark.parametrize("name", NAMES)
def test_the_entropy_is_the_mean_of_minus_log_p(name: str) -> None:
    test = load(name)
    losses = -test.true_log_prob(test.vectors[:4000])
    assert test.true_entropy is not None
    error = float(losses.std() / math.sqrt(len(losses)))
    assert float(losses.mean()) == pytest.approx(test.true_entropy, abs=4 * error + 1e-6)


@pytest.mark.parametrize(
    "name", ["mixture-1d", "claw-1d", "comb-1d", "eight-gaussians", "smiley", "pinwheel"]
)
def test_the_entropy_is_the_integral(name: str) -> None:
    """By Gauss-Legendre panels on the bare formula, not by the grid and code that made the record."""
    density = DENSITIES[name].plain if isinstance(DENSITIES[name], Twisted) else DENSITIES[name]  # type: ignore[attr-defined]
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(12))
    panels = {1: 400, 2: 14}[density.dims]
    axes, masses = [], []
    for least, greatest in density.box:
        low, high = least - 1.2, greatest + 1.2
        width = (high - low) / panels
        starts = low + width * torch.arange(panels, dtype=torch.float64)[:, None]
        axes.append((starts + width * (nodes + 1) / 2).flatten())
        masses.append((weights * width / 2).repeat(panels))
    x = torch.cartesian_prod(*axes).reshape(-1, density.dims)
    mass = torch.cartesian_prod(*masses).reshape(-1, density.dims).prod(1)
    log_prob = density.log_prob(x)
    assert float((mass * log_prob.exp()).sum()) == pytest.approx(1, abs=2e-6)
    assert float(-(mass * log_prob.exp() * log_prob).sum()) == pytest.approx(
        load(name).true_entropy, abs=2e-5
    )


def test_the_checkerboard_has_half_its_square() -> None:
    assert load("checkerboard").true_entropy == pytest.approx(math.log(32))
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [5.0, 1.0], [2.0, 2.0]])
    found = DENSITIES["checkerboard"].log_prob(x).exp() * 32
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("name", ["two-moons", "spirals", "smiley", "rings"])
def test_twice_the_nodes_give_the_same_density(name: str) -> None:
    density = DENSITIES[name]
    assert isinstance(density, NoisyCurves)
    curves = [Curve(curve.at, curve.power, 2 * curve.panels) for curve in density.curves]
    finer = NoisyCurves(curves, density.sigma, density.box)
    x = load(name).vectors[:400]
    torch.testing.assert_close(finer.log_prob(x), density.log_prob(x), rtol=0, atol=1e-9)


def test_the_gradient_of_a_density_is_right() -> None:
    for name in ("two-moons", "eight-gaussians", "pinwheel", "claw-1d"):
        x = load(name).vectors[:3].double().requires_grad_()
        assert torch.autograd.gradcheck(DENSITIES[name].log_prob, (x,))


def test_labels_are_the_parts_of_the_figure() -> None:
    smiley = load("smiley")
    left = smiley.vectors[smiley.needed_labels() == smiley.label_names.index("left eye")]
    torch.testing.assert_close(left.mean(0), torch.tensor([-1.5, 2.5]), atol=0.02, rtol=0)
    assert get_dataset("points:checkerboard").load("test").labels is None


def test_points_of_another_dimension_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(B, 2\).*\(4, 3\)"):
        load("rings").true_log_prob(torch.zeros(4, 3))
    with pytest.raises(InputError, match="not known"):
        VectorSet(torch.zeros(2, 1)).true_log_prob(torch.zeros(1, 1))


def test_statistics_are_those_of_the_train_split() -> None:
    train, test = load("spirals", "train"), load("spirals")
    torch.testing.assert_close(test.mean, train.vectors.mean(0))
    torch.testing.assert_close(test.take(5).std, train.vectors.std(0, correction=0))


def test_the_page_about_data_has_every_set_with_its_entropy() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for dataset in POINTS:
        facts = (f"`{dataset.id}`", dataset.preprocessing_note, f"| {dataset.options['entropy']:.6f} |")
        assert not [fact for fact in facts if fact not in page]
        assert dataset.id in list_datasets()
