"""``flowzoo eval``: the same digits everywhere, every image once, verdicts and exit codes."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner

from flowzoo.cli.main import cli
from flowzoo.engine import disabled
from flowzoo.evaluation.explain import explain
from flowzoo.evaluation.likelihood import likelihoods
from flowzoo.evaluation.measure import evaluate, measure
from flowzoo.evaluation.metrics import LogMeanExp, mean_and_stderr
from flowzoo.evaluation.noise import keyed_noise
from flowzoo.evaluation.protocol import Protocol
from flowzoo.evaluation.trained_model import Target, find_target
from flowzoo.training.train import train
from tests.trainings import CPU, image_set, save_images, tiny_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Glow on 8x8 images; 203 images, 20 of them test images."""
    directory = tmp_path_factory.mktemp("eval")
    dataset = save_images(directory / "images.npy", 203)
    train(tiny_recipe("glow-tiny", dataset), directory / "run", device="cpu", progress=False)
    return directory / "run"


@pytest.fixture(scope="module")
def target(run: Path) -> Target:
    return find_target(str(run))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


IMAGES = image_set(1013, seed=7)
PROTOCOL = Protocol(samples=2, seed=3)


@pytest.fixture(scope="module")
def reference(target: Target) -> Any:
    return measure(target, IMAGES, CPU, PROTOCOL, batch_size=100, audit=False)


@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_batch_size_does_not_move_the_figure(target: Target, reference: Any, batch_size: int) -> None:
    found = measure(target, IMAGES, CPU, PROTOCOL, batch_size=batch_size, audit=False)
    assert abs(found.bpd - reference.bpd) < 1e-6
    torch.testing.assert_close(found.per_image.log_prob, reference.per_image.log_prob, rtol=0, atol=2e-3)


def test_one_image_at_a_time_gives_the_same_figure(target: Target) -> None:
    few = image_set(101, seed=8)
    whole = measure(target, few, CPU, PROTOCOL, batch_size=101, audit=False)
    single = measure(target, few, CPU, PROTOCOL, batch_size=1, audit=False)
    assert abs(single.bpd - whole.bpd) < 1e-6


def test_order_does_not_move_the_figure(target: Target, reference: Any) -> None:
    order = torch.randperm(len(IMAGES), generator=torch.Generator().manual_seed(1))
    found = measure(target, IMAGES, CPU, PROTOCOL, batch_size=100, order=order, audit=False)
    assert abs(found.bpd - reference.bpd) < 1e-6
    assert found.per_image.indices.tolist() == list(range(len(IMAGES)))


@pytest.mark.usefixtures("threads")
def test_threads_do_not_move_the_figure(target: Target, reference: Any) -> None:
    for count in (1, 2):
        torch.set_num_threads(count)
        found = measure(target, IMAGES, CPU, PROTOCOL, batch_size=100, audit=False)
        assert abs(found.bpd - reference.bpd) < 1e-6


def test_torchs_generator_does_not_move_the_figure(target: Target, reference: Any) -> None:
    torch.manual_seed(99)
    found = measure(target, IMAGES, CPU, PROTOCOL, batch_size=100, audit=False)
    assert found.bpd == reference.bpd


def test_the_mean_is_over_images_with_its_standard_error(target: Target, reference: Any) -> None:
    bpd = -reference.per_image.log_prob / (64 * math.log(2))
    assert reference.bpd == pytest.approx(bpd.mean().item(), abs=1e-12)
    assert reference.stderr == pytest.approx((bpd.std() / math.sqrt(len(bpd))).item(), rel=1e-9)


def test_more_samples_tighten_the_bound(target: Target) -> None:
    one = measure(target, IMAGES, CPU, Protocol(samples=1), audit=False)
    many = measure(target, IMAGES, CPU, Protocol(samples=8), audit=False)
    assert many.bpd < one.bpd


def test_samples_are_combined_by_log_mean_exp(target: Target) -> None:
    few = IMAGES.take(5)
    joint = likelihoods(target.flow, few, CPU, samples=3, seed=0).log_prob

    singles = []
    for sample in range(3):
        noise = keyed_noise(target.flow.noise_kind, (1, 8, 8), 0, range(5), sample)
        with torch.no_grad():
            singles.append(target.flow.log_prob(few[:], noise=noise).double())
    expected = torch.logsumexp(torch.stack(singles), 0) - math.log(3)
    torch.testing.assert_close(joint, expected, rtol=0, atol=1e-9)


def test_float64_agrees_with_float32(run: Path) -> None:
    single = evaluate(str(run), device="cpu", progress=False, audit=False)
    double = evaluate(str(run), device="cpu", progress=False, dtype="float64")
    assert abs(single.bpd - double.bpd) < 1e-5
    assert double.reconstruction is not None
    assert double.reconstruction.worst_latent < 1e-9


def test_a_sound_model_reconstructs_every_image(run: Path, target: Target) -> None:
    found = evaluate(str(run), device="cpu", progress=False)
    assert found.reconstruction is not None
    assert found.reconstruction.exact == found.reconstruction.count == 20
    assert found.reconstruction.worst_latent < 1e-3
    few = IMAGES[:10]
    assert torch.equal(find_target(str(run)).flow.reconstruct(few), few)


def test_the_audit_notices_a_broken_inverse(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = find_target(str(run))
    inverse = target.flow.bijector.inverse
    monkeypatch.setattr(
        target.flow.bijector, "inverse", lambda z, context=None: (inverse(z)[0] + 0.01, inverse(z)[1])
    )
    found = measure(target, IMAGES.take(10), CPU, PROTOCOL)
    assert found.reconstruction is not None
    assert found.reconstruction.exact == 0


@pytest.mark.parametrize("values", [[-1e5, -1e5 - 1, -1e5 + 3], [0.0, -800.0, 800.0], [-math.inf, 1.0]])
def test_log_mean_exp_is_exact_and_does_not_overflow(values: list[float]) -> None:
    bound = LogMeanExp()
    for value in values:
        bound.add(torch.tensor([value, value - 2.0]))
    expected = torch.logsumexp(torch.tensor(values, dtype=torch.float64), 0) - math.log(len(values))
    torch.testing.assert_close(bound.result(), torch.stack([expected, expected - 2.0]))


def test_one_image_has_no_standard_error() -> None:
    assert math.isnan(mean_and_stderr(torch.tensor([1.0])).stderr)


def test_command_line(run: Path, tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    arguments = ["eval", str(run), "--device", "cpu", "--limit", "5", "--json", "--per-image", str(table)]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.exception is None, result.output
    found = json.loads(result.stdout)
    assert found["partial"] is True
    assert found["num_images"] == 5
    rows = list(csv.DictReader(table.open()))
    assert [row["index"] for row in rows] == list("01234")
    assert sum(float(row["bits_per_dim"]) for row in rows) / 5 == pytest.approx(found["bpd"], abs=1e-12)


def test_explanation_has_this_models_constants(target: Target) -> None:
    text = explain("x", target.flow, Protocol(samples=4, seed=9), "made-up", "test")
    for part in ("D = 64", "256^-64", f"{64 * math.log(2):.4f}", "k = 4", "seed = 9", "made-up"):
        assert part in text
    assert "the engine fuses what it can" in text
    with disabled():
        assert "plainly" in explain("x", target.flow, Protocol(samples=4, seed=9), "made-up", "test")
