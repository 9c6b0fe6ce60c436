"""The figure under uniform noise in place of a learned one: what it is, what it is compared with, who records it."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch

import flowzoo
from flowzoo.data import get_dataset
from flowzoo.densities import UniformDequantization
from flowzoo.errors import InputError
from flowzoo.evaluation.metrics import Mean
from flowzoo.evaluation.noise import keyed_noise
from flowzoo.evaluation.protocol import Protocol
from flowzoo.evaluation.verdict import Verdict, judge
from flowzoo.flow import Flow
from flowzoo.manifest.read import load_manifests
from flowzoo.manifest.schema import Data, Entry, Sampling
from flowzoo.publishing import figures
from flowzoo.testing import randomize
from flowzoo.weights.load import find_entry
from tests.trainings import save_images


@pytest.fixture(scope="module")
def flow() -> Flow:
    """A small flow whose noise is learned, away from its initial values."""
    made = flowzoo.create("glow-tiny", dequantization="variational")
    randomize(made, seed=0)
    made.initialize(images(64), generator=torch.Generator().manual_seed(0))
    return made.eval()


def images(n: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(
        256, (n, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_it_is_the_likelihood_under_uniform_noise_of_the_same_weights(flow: Flow) -> None:
    x = images(5)
    plain = copy.deepcopy(flow)
    plain.dequantization = UniformDequantization()
    noise = keyed_noise("uniform", flow.data_shape, 3, range(5), 0)
    expected = plain.nats_to_bits(plain.log_prob(x, noise=noise))
    found = flowzoo.evaluate(flow, x, noise="uniform", seed=3)
    assert found.bpd == pytest.approx(float(expected.detach().double().mean()), abs=1e-6)
    assert (found.dequantization, found.is_lower_bound, found.reconstruction) == ("uniform", False, None)
    own = flowzoo.evaluate(flow, x, seed=3)
    assert (own.dequantization, own.is_lower_bound) == ("variational", True)
    assert abs(own.bpd - found.bpd) > 1e-3
    assert flow.noise_kind == "normal", "the flow itself is as it was"


def test_a_model_whose_noise_is_uniform_has_one_figure() -> None:
    uniform = flowzoo.create("nice-tiny").eval()
    x = images(4, uniform.data_shape[0])
    assert flowzoo.evaluate(uniform, x, noise="uniform").bpd == flowzoo.evaluate(uniform, x).bpd


@pytest.mark.parametrize("name", ["idf-tiny", "maf-moons"])
def test_a_model_without_noise_refuses_it(name: str) -> None:
    model = flowzoo.create(name).eval()
    data = torch.zeros(2, 2) if name == "maf-moons" else torch.zeros(2, *model.data_shape, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"no noise is added. Leave noise out"):
        flowzoo.evaluate(model, data, noise="uniform")


def test_another_word_is_refused(flow: Flow) -> None:
    with pytest.raises(InputError, match="noise is 'none'; choose one of own, uniform"):
        flowzoo.evaluate(flow, images(2), noise="none")


def verdict(entry: Entry, bpd: float, protocol: Protocol, dequantization: str) -> Verdict:
    return judge(
        entry, Mean(bpd, 0.002, 10_000), protocol, get_dataset("mnist").load("test"),
        partial=False, dequantization=dequantization,
    )  # fmt: skip


def test_it_is_verified_against_the_entrys_own_figure_of_it() -> None:
    entry = find_entry("glow-mnist")
    assert entry.uniform_noise is not None and entry.measured is not None and entry.measured.bpd is not None
    uniform, own = Protocol(noise="uniform"), Protocol(samples=entry.measured.samples)
    assert verdict(entry, entry.uniform_noise.bpd, uniform, "uniform").state == "verified"
    wrong = verdict(entry, entry.uniform_noise.bpd + 0.001, uniform, "uniform")
    assert (wrong.state, wrong.manifest_bpd) == ("not verified", entry.uniform_noise.bpd)
    assert verdict(entry, entry.measured.bpd, own, "variational").state == "verified"
    without = dataclasses.replace(entry, uniform_noise=None)
    assert verdict(without, entry.uniform_noise.bpd, uniform, "uniform").state == "other protocol"


def test_every_shipped_model_with_learned_noise_states_it() -> None:
    for entry in load_manifests().entries:
        learned = entry.measured is not None and entry.measured.dequantization == "variational"
        assert (entry.uniform_noise is not None) == learned, entry.key


def test_publishing_measures_it(flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        figures, "count_finite", lambda _: Sampling(drawn=10_000, finite=10_000, temperature=1, seed=0)
    )
    flowzoo.save(flow, tmp_path / "glow")
    dataset = save_images(tmp_path / "images.npy", 203, flow.data_shape)
    data = Data(id=dataset, preprocessing="numpy-as-is-v2", split="test", num_images=20, terms="made up")
    found = figures.measure_model(tmp_path / "glow", flow, data).uniform_noise
    again = flowzoo.evaluate(flow, dataset, noise="uniform")
    assert found is not None
    assert found.bpd == pytest.approx(again.bpd, abs=1e-6)
    assert figures.uniform_noise_of(dataclasses.replace(again, bpd=math.inf)) is None
