"""Scores of images, AUROC, histograms, neighbours and the Frechet distance."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowzoo.analysis import fid
from flowzoo.analysis.batches import draw, log_probs
from flowzoo.analysis.fid import find_network, frechet_distance, frechet_inception_distance
from flowzoo.analysis.histogram import save_histogram
from flowzoo.analysis.neighbours import nearest
from flowzoo.analysis.scores import auroc, complexity, score
from flowzoo.atomic import sha256_file
from flowzoo.bijectors import Flatten
from flowzoo.data import ImageSet
from flowzoo.errors import InputError, IntegrityError, WeightsUnavailable
from flowzoo.factory import create
from flowzoo.flow import Flow
from flowzoo.testing.randomize import random_images, randomize


def model(name: str = "nice-tiny") -> Flow:
    torch.manual_seed(0)
    return randomize(create(name), 0, scale=0.02).double().eval()


def test_scores_are_the_flows_own_bits_and_their_distances() -> None:
    flow = Flow(image_shape=(1, 8, 8), bijector=Flatten((1, 8, 8)))
    x = random_images(flow, 5, seed=0)
    found = score(flow, x, entropy=8.0, batch_size=2)
    # N(v; 0, 1) of v in [0, 1) with 256 bins: between 8 + log2(2 pi)/2 and that plus log2(e)/2.
    least = 8 + math.log2(2 * math.pi) / 2
    assert ((found.bits_per_dim > least) & (found.bits_per_dim < least + 0.73)).all()
    torch.testing.assert_close(found.typicality, found.bits_per_dim - 8.0)
    torch.testing.assert_close(found.complexity_corrected, found.bits_per_dim - found.complexity)
    assert score(flow, x).entropy == pytest.approx(float(found.bits_per_dim.mean()))


@pytest.mark.parametrize("name", ["nice-tiny", "glow-tiny", "flowpp-tiny"])
def test_an_images_figure_is_its_own_whatever_the_batch(name: str) -> None:
    flow = model(name)
    x = random_images(flow, 5, seed=1)
    together = log_probs(flow, x, seed=3)
    torch.testing.assert_close(log_probs(flow, x, seed=3, batch_size=2), together)
    assert not torch.equal(log_probs(flow, x, seed=4), together)
    bits = flow.bits_per_dim(x, seed=0).double()
    torch.testing.assert_close(flow.nats_to_bits(together), bits, rtol=0, atol=0.3)


def test_vectors_have_log_probs_and_samples_but_no_score() -> None:
    flow = Flow(dims=2, bijector=Flatten((2,)))
    x = draw(flow, 130, seed=5)
    assert torch.equal(x[:64], draw(flow, 64, seed=5))
    torch.testing.assert_close(log_probs(flow, x, batch_size=7), flow.log_prob(x).double())
    with pytest.raises(InputError, match="images"):
        score(flow, x)


def test_plain_images_are_simple_and_noise_is_not() -> None:
    flow = model()
    plain, noise = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), random_images(model("glow-tiny"), 1, seed=0)
    noise = noise.repeat(1, 1, 4, 4)[..., torch.randperm(32, generator=torch.Generator().manual_seed(0))]
    for compressor in ("png", "zlib"):
        low, high = (float(complexity(x, compressor)) for x in (plain, noise))  # type: ignore[arg-type]
        assert low < 0.5
        assert high > 2
    with pytest.raises(InputError, match="compressor"):
        score(flow, random_images(flow, 1, seed=0), compressor="rar")  # type: ignore[arg-type]


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 9, (n,), generator=generator).double() for n in (23, 31))
    pairs = (b[None] > a[:, None]).double() + 0.5 * (b[None] == a[:, None]).double()
    assert auroc(a, b) == pytest.approx(float(pairs.mean()))
    assert auroc(a, b) + auroc(b, a) == pytest.approx(1)
    assert auroc(torch.zeros(3), torch.ones(2)) == 1
    assert auroc(torch.tensor([1.0]), torch.tensor([float("inf")])) == 1
    for wrong in (torch.zeros(0), torch.tensor([float("nan")])):
        with pytest.raises(InputError):
            auroc(a, wrong)


def test_a_histogram_shows_where_each_set_lies(tmp_path: Path) -> None:
    low, high = torch.linspace(0, 1, 50), torch.linspace(5, 6, 20)
    save_histogram({"low": low, "high": high}, tmp_path / "h.png", title="both")
    pixels = np.asarray(Image.open(tmp_path / "h.png").convert("RGB")).astype(int)
    row = pixels[250]
    coloured = (row.max(1) - row.min(1)) > 20
    assert coloured[30:120].any()
    assert not coloured[250:500].any()
    assert coloured[600:].any()
    for wrong in ({}, {"a": torch.tensor([math.inf])}):
        with pytest.raises(InputError, match="finite"):
            save_histogram(wrong, tmp_path / "no.png")


# --- neighbours ---------------------------------------------------------------------------------------------


def test_neighbours_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowzoo.analysis.neighbours._BLOCK", 17)
    there = torch.randint(
        0, 256, (60, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    x = torch.randint(0, 256, (4, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = nearest(x, ImageSet(there), 3)
    gaps = torch.cdist(x.flatten(1).double(), there.flatten(1).double()) / 6
    expected = gaps.sort(dim=1)
    assert torch.equal(found.indices, expected.indices[:, :3])
    torch.testing.assert_close(found.distances, expected.values[:, :3])
    torch.testing.assert_close(found.ratio, expected.values[:, 0] / expected.values[:, :50].mean(dim=1))
    assert not found.copies.any()


def test_a_copy_is_called_one() -> None:
    there = torch.randint(
        0, 256, (60, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    near = (there[7:8].int() + 1).clamp(0, 255).to(torch.uint8)
    found = nearest(near, ImageSet(there), 1)
    assert found.indices.tolist() == [[7]]
    assert found.copies.tolist() == [True]
    assert float(found.distances[0, 0]) <= 1
    with pytest.raises(InputError, match="at least k"):
        nearest(near, ImageSet(there), 61)
    with pytest.raises(InputError, match="expected uint8"):
        nearest(near[..., :5], ImageSet(there), 1)


def test_the_frechet_distance_is_that_of_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200, 4, dtype=torch.float64, generator=generator)
    a = torch.linalg.solve_triangular(
        torch.linalg.cholesky(torch.cov(a.T)), (a - a.mean(0)).T, upper=False
    ).T  # mean 0, covariance 1
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    # Means 0 and 2, standard deviations 1 and 3, in four dimensions: 4 (2^2 + (3 - 1)^2).
    assert frechet_distance(a, 3 * a + 2) == pytest.approx(32)


def test_the_distance_of_images_is_that_of_the_networks_features_of_them() -> None:
    """With a small network in Inception's place: its input, its batches, one channel and three."""
    shapes: list[tuple[int, ...]] = []
    mean, spread = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def levels(x: torch.Tensor) -> torch.Tensor:
        """The mean level of each channel: standardising undone, so that constant images give their own level."""
        shapes.append(tuple(x.shape))
        return (x * torch.tensor(spread).reshape(3, 1, 1) + torch.tensor(mean).reshape(3, 1, 1)).mean(
            (2, 3)
        ) * 255

    grey = torch.arange(0, 80, 2, dtype=torch.uint8).reshape(40, 1, 1, 1).expand(40, 1, 8, 8)
    counted: list[int] = []
    found = frechet_inception_distance(grey, grey + 10, network=levels, advance=counted.append)
    # The covariances are equal and the means 10 apart in each of three channels.
    assert found == pytest.approx(300, rel=1e-3)
    assert frechet_inception_distance(grey, grey, network=levels) == pytest.approx(0, abs=1e-2)
    assert shapes[:2] == [(32, 3, 299, 299), (8, 3, 299, 299)]
    assert sum(counted) == 80
    assert frechet_inception_distance(grey.repeat(1, 3, 1, 1), grey + 10, network=levels) == pytest.approx(
        found
    )
    with pytest.raises(InputError, match="at least two images"):
        frechet_inception_distance(grey[:1], grey, network=levels)


def test_the_missing_network_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailable, match="Inception v3"):
        find_network()


def test_torchvisions_network_gives_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network itself, with drawn weights: those that it was trained to are not here. Another file is refused."""
    from torchvision.models import inception_v3

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (path := tmp_path / "hub" / "checkpoints" / fid._FILE).parent.mkdir(parents=True)
    path.write_bytes(b"a download that was cut off")
    with pytest.raises(IntegrityError, match="Delete it"):
        fid.load_network()
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), path)
    monkeypatch.setattr(fid, "_DIGEST", sha256_file(path)[:8])
    network = fid.load_network()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 299, 299)).shape == (1, 2048)
    assert not network.training
