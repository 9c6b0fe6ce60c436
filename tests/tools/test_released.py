"""What every released model has to say of itself: figures, times, samples and pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from flowzoo.manifest.read import Entry, parse
from flowzoo.publishing.several import no_several_of
from tools.beside import Beside, captions_of, divergence
from tools.card_inverse import inverse
from tools.cells import noun, true_entropy

ROOT = Path(__file__).parents[2]
MANIFEST = parse((ROOT / "weights_manifest.json").read_text(encoding="utf-8"), "weights_manifest.json")
RELEASED = [entry for entry in MANIFEST.entries if entry.status == "released"]
PICTURES = {path.name for path in (ROOT / "docs/images").glob("*.png")}
BESIDE = Beside.read(ROOT)

released = pytest.mark.parametrize("entry", RELEASED, ids=lambda entry: entry.key)


def text(entry: Entry) -> str:
    return (ROOT / f"docs/models/{entry.name}.md").read_text(encoding="utf-8")


@released
def test_it_has_a_figure_of_one_sample_and_one_of_eight_or_a_reason(entry: Entry) -> None:
    found = entry.measured
    assert found is not None and found.date is not None
    assert (found.samples == 1) != (entry.one_sample_bpd is not None)
    several = found.samples if found.samples > 1 else entry.several_samples and entry.several_samples.samples
    reason = no_several_of(entry)
    assert (several == 8) != (reason is not None)
    assert reason is None or f"No figure of several noise samples: {reason}." in text(entry)
    assert found.date in text(entry)


@released
def test_learned_noise_stands_beside_uniform_noise(entry: Entry) -> None:
    found = entry.measured
    assert found is not None
    learned = found.dequantization == "variational"
    assert (entry.uniform_noise is not None) == learned
    assert ("measured, uniform noise" in text(entry)) == learned


@released
def test_its_kind_passes_and_share_of_finite_samples_are_stated(entry: Entry) -> None:
    assert entry.figure_kind is not None and entry.inverse_kind is not None
    assert entry.density_passes is not None and entry.sampling_passes is not None
    assert entry.sampling is not None and entry.sampling.drawn >= 10_000
    card = text(entry)
    assert f"{entry.density_passes:,} for a density, {entry.sampling_passes:,} for a sample" in card
    assert f"{entry.sampling.finite:,} of {entry.sampling.drawn:,} samples at temperature" in card
    if entry.figure_kind != "exact":
        assert {"bound": "a bound", "unbiased": "estimated, unbiased"}[entry.figure_kind] in card


@released
def test_it_is_timed_both_ways_and_its_round_trip_measured(entry: Entry) -> None:
    timing, card = BESIDE.timing(entry), text(entry)
    assert timing, f"docs/timings.json is of other weights; run: python -m tools.timings {entry.name}"
    for key in ("density_ms", "sample_ms"):
        assert f"{timing[key]:g} ms" in card
    assert timing["hardware"] in card and "| round trip |" in card
    assert entry.measured is not None and entry.measured.reconstruction_exact is not None
    assert f"{entry.measured.reconstruction_exact:,} of {entry.measured.num_images:,} {noun(entry)}" in card
    lost = entry.measured.reconstruction_exact < entry.measured.num_images
    assert ("lost to float32's rounding" in card) == lost
    assert ("did in float64" in card) == (lost or timing["round_trip"]["float32"] >= 0.5)


@released
def test_it_has_a_picture_and_a_curve_or_says_that_there_is_none(entry: Entry) -> None:
    card = text(entry)
    picture = f"{entry.name}.png" if noun(entry) == "images" else f"picture-{entry.name}.png"
    assert picture in PICTURES and f"(../images/{picture})" in card
    kept = f"{entry.name}-curve.png" in PICTURES
    assert (f"(../images/{entry.name}-curve.png)" in card) == kept
    assert ("No training curve of it was kept." in card) != kept


@released
def test_points_of_a_known_density_have_their_divergence(entry: Entry) -> None:
    if true_entropy(entry) is not None:
        assert f"| {BESIDE.divergences[entry.name].value:.4f} ± " in text(entry)


@released
def test_a_picture_of_points_is_of_these_weights(entry: Entry) -> None:
    if noun(entry) == "vectors":
        assert entry.measured is not None
        with Image.open(ROOT / f"docs/images/picture-{entry.name}.png") as image:
            stated = str(image.info["Description"])
        again = f"flowzoo picture {entry.name} -o docs/images/picture-{entry.name}.png"
        assert f": {entry.measured.value:.4f} ± " in stated, f"it is of other weights; run: {again}"


def test_captions_are_of_curves_that_are_there() -> None:
    assert {f"{name}-curve.png" for name in captions_of(ROOT)} <= PICTURES
    for name, caption in captions_of(ROOT).items():
        found = MANIFEST.default(name)
        assert found is not None and caption in text(found)


def test_a_model_of_labels_says_which_density_is_which() -> None:
    found = MANIFEST.default("tarflow-digits")
    assert found is not None and found.measured is not None and found.labels is not None
    card = text(found)
    assert f"| measured, p(x given y) | {found.measured.value:.4f} ± " in card
    assert f"| measured, p(x) | {found.labels.other:.4f} |" in card
    sections = {part.partition("\n")[0]: part for part in card.split("\n## ")}
    assert f"Bayes' rule: {found.labels.accuracy:.4f}" in sections["Labels"]
    assert "Bayes" not in sections["Model"]


def test_figures_of_other_weights_are_left_out() -> None:
    found = MANIFEST.default("nice-cdf-mnist")
    assert found is not None and found.weights is not None
    assert BESIDE.timing(found) and BESIDE.counted(found)
    renewed = dataclasses.replace(found, weights=dataclasses.replace(found.weights, sha256="0" * 64))
    assert not BESIDE.timing(renewed) and not BESIDE.counted(renewed)
    said = "\n".join(inverse(renewed, BESIDE))
    assert "ms an image" not in said and "float64" not in said and "9,474 of 10,000" in said


def test_only_points_have_a_divergence_beside_their_picture() -> None:
    assert set(BESIDE.divergences) == {entry.name for entry in RELEASED if noun(entry) == "vectors"}
    assert divergence(ROOT / "docs/images/picture-glow-mnist.png") is None
