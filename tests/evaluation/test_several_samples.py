"""The figure with eight noise samples beside that with one: what is compared with it, who records it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import flowzoo
from flowzoo.data import get_dataset
from flowzoo.evaluation.metrics import Mean
from flowzoo.evaluation.protocol import Protocol
from flowzoo.evaluation.verdict import Verdict, judge
from flowzoo.flow import Flow
from flowzoo.manifest.read import load_manifests
from flowzoo.manifest.schema import Data, Entry, Sampling, SeveralSamples
from flowzoo.publishing import figures
from flowzoo.publishing.card import model_card
from flowzoo.publishing.several import no_several, no_several_of
from flowzoo.testing import randomize
from flowzoo.weights.load import find_entry
from tests.trainings import save_images


def verdict(entry: Entry, bpd: float, samples: int) -> Verdict:
    return judge(
        entry, Mean(bpd, 0.002, 10_000), Protocol(samples=samples), get_dataset("mnist").load("test"),
        partial=False, dequantization="uniform",
    )  # fmt: skip


def test_an_evaluation_of_as_many_samples_is_compared_with_it() -> None:
    entry = find_entry("jet-mnist")
    assert entry.measured is not None and entry.measured.bpd is not None
    lower = entry.measured.bpd - 0.01
    entry = dataclasses.replace(entry, several_samples=SeveralSamples(samples=8, bpd=lower, stderr=0.002))
    assert verdict(entry, lower, 8).state == "verified"
    wrong = verdict(entry, lower + 0.001, 8)
    assert (wrong.state, wrong.manifest_bpd) == ("not verified", lower)
    assert verdict(entry, entry.measured.bpd, 1).state == "verified"
    assert verdict(entry, lower, 4).state == "other protocol"
    assert verdict(dataclasses.replace(entry, several_samples=None), lower, 8).state == "other protocol"


def made(name: str) -> Flow:
    flow = flowzoo.create(name)
    randomize(flow, seed=0)
    return flow.eval()


def test_publishing_measures_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = Sampling(drawn=10_000, finite=10_000, temperature=1, seed=0)
    monkeypatch.setattr(figures, "count_finite", lambda _: counted)
    flow = made("nice-tiny")
    flowzoo.save(flow, tmp_path / "nice")
    dataset = save_images(tmp_path / "images.npy", 203, flow.data_shape)
    data = Data(id=dataset, preprocessing="numpy-as-is-v2", split="test", num_images=20, terms="made up")
    found = figures.measure_model(tmp_path / "nice", flow, data)
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("image ")]
    assert said == [
        "Drawing 10000 samples, to see that they are finite.",
        "Measuring on the test split: 1 sample of the model's noise for each item.",
        "Measuring on the test split: 8 samples of the model's noise for each item.",
    ]
    assert found.several_samples is not None
    again = flowzoo.evaluate(flow, dataset, samples=8)
    assert found.several_samples.samples == 8
    assert found.several_samples.bpd == pytest.approx(again.bpd, abs=1e-6)
    assert found.several_samples.bpd < found.evaluation.bpd, "by Jensen's inequality"
    assert figures.measure_model(tmp_path / "nice", flow, data, samples=8).several_samples is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cdf-mnist", "all over a grey level"),
        ("pixelcnn-mnist", "all over a grey level"),
        ("ffjord-mnist", "is estimated"),
        ("residual-mnist", "is estimated"),
        ("idf-mnist", "no noise"),
        ("idf-cifar10", "no noise"),
        ("maf-moons", "no noise"),
        ("tarflow-digits", "not of grey levels"),
    ],
)
def test_a_card_says_why_there_is_no_figure_of_eight(name: str, words: str) -> None:
    reason = no_several_of(find_entry(name))
    assert reason is not None and words in reason
    assert reason in model_card(find_entry(name), "its data")
    flat = pytest.fail if "grey level, so" not in reason else lambda: True
    flow = flowzoo.load(name)
    estimated = flow.log_det_kind != "exact"
    assert reason == no_several(
        noise=flow.noise_kind != "none", valid_bpd=flow.valid_bpd, estimated=estimated, flat=flat
    ), "the entry's reason is the flow's"


@pytest.mark.parametrize("name", ["glow-mnist", "jet-mnist", "nice-cdf-mnist"])
def test_a_model_with_both_figures_gives_no_reason(name: str) -> None:
    assert no_several_of(find_entry(name)) is None


@pytest.mark.parametrize(
    ("name", "gains"),
    [
        ("nice-tiny", True),
        ("glow-tiny", True),
        ("idf-tiny", False),
        ("maf-moons", False),
        ("residual-tiny", False),
        ("cdf-toy", False),
    ],
)
def test_it_is_asked_of_models_with_noise_exact_densities_and_slopes_in_a_bin(name: str, gains: bool) -> None:
    assert figures.gains_by_samples(made(name)) == gains


def test_every_shipped_model_that_gains_states_both_figures() -> None:
    for entry in load_manifests().entries:
        if entry.measured is None:
            continue
        stated = entry.one_sample_bpd is not None or entry.several_samples is not None
        assert stated == figures.gains_by_samples(flowzoo.load(entry.key)), entry.key
