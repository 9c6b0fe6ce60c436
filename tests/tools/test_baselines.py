"""The baselines: codes of known length, and the figures on record beside the bundled images."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from flowzoo.data import get_dataset
from flowzoo.manifest.read import Manifest, Reference
from flowzoo.manifest.write import read_manifest
from tests.manifest_examples import example_entry, manifest_text
from tools.baselines import counts, files
from tools.baselines.__main__ import main, with_references

RECORD = read_manifest(Path(__file__).resolve().parents[2] / "weights_manifest.json").references


def images(size: int, seed: int, dims: int = 6, levels: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, levels, (size, dims), dtype=np.uint8)


def test_uniform_levels_need_the_logarithm_of_their_number() -> None:
    train, test = images(50_000, 0), images(1000, 1)
    for code in (counts.histogram, counts.independent_dimensions):
        assert code(train, test, 4, 0.5).mean() == pytest.approx(2, abs=1e-3)


def test_the_code_is_that_of_the_smoothed_counts() -> None:
    train = np.array([[0, 3], [0, 3], [1, 3]], dtype=np.uint8)
    test = np.array([[0, 3], [2, 0]], dtype=np.uint8)
    bits = -np.log2([2.5 / 5, 3.5 / 5]), -np.log2([0.5 / 5, 0.5 / 5])
    np.testing.assert_allclose(counts.independent_dimensions(train, test, 4, 0.5), np.mean(bits, axis=1))
    shared = -np.log2([2.5 / 8, 3.5 / 8]), -np.log2([0.5 / 8, 2.5 / 8])
    np.testing.assert_allclose(counts.histogram(train, test, 4, 0.5), np.mean(shared, axis=1))


@pytest.mark.parametrize("seed", range(3))
def test_every_code_is_a_probability_of_images(seed: int) -> None:
    """The probabilities of all images of two dimensions sum to one."""
    train = images(7, seed, dims=2)
    labels = np.array([0, 1, 1, 2, 0, 1, 2])
    every = np.array([[a, b] for a in range(4) for b in range(4)], dtype=np.uint8)
    for bits in (
        counts.histogram(train, every, 4, 0.1),
        counts.independent_dimensions(train, every, 4, 0.1),
        counts.class_mixture(train, labels, every, 4, 0.1),
    ):
        assert np.exp2(-2 * bits).sum() == pytest.approx(1)


def test_a_mixture_of_one_class_is_independent_dimensions_and_more_classes_help() -> None:
    labels = np.arange(400) % 2
    train, test = (
        images(400, 0, levels=2) * 0 + labels[:, None].astype(np.uint8),
        np.repeat([[0], [1]], 6, axis=1),
    )
    alone = counts.independent_dimensions(train, test.astype(np.uint8), 2, 0.5)
    one = counts.class_mixture(train, labels * 0, test.astype(np.uint8), 2, 0.5)
    np.testing.assert_allclose(one, alone)
    two = counts.class_mixture(train, labels, test.astype(np.uint8), 2, 0.5)
    assert two.mean() == pytest.approx(1 / 6, abs=0.01), "one bit for the class, next to none for the pixels"


@pytest.mark.parametrize("smoothing", counts.CONSTANTS)
def test_no_code_of_independent_dimensions_is_below_the_bound(smoothing: float) -> None:
    train, test = images(300, 0) // 2, images(200, 1) // 2
    bound = counts.empirical_entropy(test, 4).mean()
    assert counts.independent_dimensions(train, test, 4, smoothing).mean() >= bound
    assert counts.independent_dimensions(test, test, 4, 1e-12).mean() == pytest.approx(bound)


def test_smoothing_is_chosen_on_held_out_images() -> None:
    few = images(60, 0, levels=256)
    assert counts.choose_smoothing(few, 256) == max(counts.CONSTANTS), (
        "levels that were never seen are likely"
    )
    many = np.zeros((5000, 3), dtype=np.uint8)
    assert counts.choose_smoothing(many, 256) == min(counts.CONSTANTS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["PNG", "WebP"])
def test_a_file_gives_its_image_back_and_its_bytes_are_counted(
    name: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, channels, 8, 8), dtype=np.uint8)
    written: list[bytes] = []
    real = Image.Image.save

    def save(self: Image.Image, target: io.BytesIO, **options: object) -> None:
        real(self, target, **options)
        written.append(target.getvalue())

    monkeypatch.setattr(Image.Image, "save", save)
    [bits] = files.file_bits(name, picture)
    assert bits == 8 * len(written[0]) / picture.size
    back = np.asarray(Image.open(io.BytesIO(written[0])).convert("L" if channels == 1 else "RGB"))
    assert np.array_equal(back.reshape(8, 8, channels), picture[0].transpose(1, 2, 0))


def test_a_stream_of_one_level_costs_next_to_nothing() -> None:
    assert files.stream_bits(np.zeros((100, 1, 28, 28), dtype=np.uint8)) < 0.02
    noise = np.random.default_rng(0).integers(0, 256, (10, 1, 28, 28), dtype=np.uint8)
    assert files.stream_bits(noise) >= 8


def test_the_record_is_of_the_bundled_images() -> None:
    """What needs no training images is computed again; the others keep their order."""
    test = get_dataset("mnist").load("test")
    flat = np.asarray(test.images).reshape(len(test), -1)
    rows = {found.name: found for found in RECORD if found.data.id == "mnist"}
    assert {found.data.digest for found in rows.values()} == {get_dataset("mnist").split("test").sha256}
    bound = counts.empirical_entropy(flat, 256)
    found = rows["independent pixels, bound"]
    assert found.figure == pytest.approx(bound.mean(), abs=1e-12)
    assert found.stderr == pytest.approx(bound.std(ddof=1) / math.sqrt(len(bound)), abs=1e-12)
    assert rows["uniform"].figure == 8
    order = ("mixture of 10 class marginals", "independent pixels", "one histogram", "uniform")
    figures = [rows[name].figure for name in order]
    assert figures == sorted(figures)
    assert found.figure < rows["independent pixels"].figure


def test_every_record_names_the_command_that_made_it_and_todays_images() -> None:
    assert {found.data.id for found in RECORD} == {"mnist", "cifar10", "celeba64-half"}
    for found in RECORD:
        data = get_dataset(found.data.id)
        assert found.command == f"python -m tools.baselines {data.id}"
        assert found.versions["pillow"]
        assert (found.data.num_images, found.data.digest) == (
            data.split("test").size,
            data.split("test").sha256,
        )
        assert (found.data.preprocessing, found.data.release) == (data.preprocessing, data.release)


def test_independent_pixels_say_the_figure_that_other_pages_name() -> None:
    """Theirs are counted on all 60,000 images that are not the test's; this row's on those of training."""
    [row] = [found for found in RECORD if found.data.id == "mnist" and found.name == "independent pixels"]
    assert row.note is not None and f"{row.figure:.4f}" == "1.6889"
    assert "50,000 training images plus 0.2 a level" in row.note
    assert "1.6885 if counted on all 60,000 images that are not the test's plus 0.1 a level" in row.note
    truth = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert "| histograms of 60,000 training images | 1.6885 |" in truth


def test_the_command_writes_references_into_a_manifest(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", pixels)
    manifest = tmp_path / "weights_manifest.json"
    manifest.write_text(manifest_text(example_entry()))
    name = f"numpy:{tmp_path}/mine.npy"
    done = CliRunner().invoke(main, [name, "--manifest", str(manifest)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = read_manifest(manifest)
    assert [entry.key for entry in found.entries] == ["nice-example@1"]
    rows = {row.name: row for row in found.references}
    assert {"uniform", "one histogram", "independent pixels", "PNG, an image a file"} <= set(rows)
    assert (rows["uniform"].figure, rows["uniform"].stderr) == (8, None)
    png = rows["PNG, an image a file"]
    assert png.stderr is not None and png.data.split == "test" and png.unit == "bits per dimension"
    assert png.figure > 8, "a file has a header"
    assert png.note == "bytes of lossless files" and png.command == f"python -m tools.baselines {name}"


def test_what_was_not_measured_again_stays_if_it_is_of_the_same_images() -> None:
    mnist = {found.name: found for found in RECORD if found.data.id == "mnist"}
    new = dataclasses.replace(mnist["uniform"], figure=7.0)

    def names(*references: Reference) -> dict[tuple[str, str], float]:
        merged = with_references(Manifest(references=RECORD), references)
        return {(found.data.id, found.name): found.figure for found in merged.references}

    before = {(found.data.id, found.name): found.figure for found in RECORD}
    assert names(new) == before | {("mnist", "uniform"): 7.0}
    moved = dataclasses.replace(new, data=dataclasses.replace(new.data, digest="0" * 64))
    assert names(moved) == {key: value for key, value in before.items() if key[0] != "mnist"} | {
        ("mnist", "uniform"): 7.0
    }
