"""Measures the leaderboard's baselines: ``python -m tools.baselines [DATASET]...``.

They are references of kind ``baseline`` in ``weights_manifest.json``. Training images are read from ``FLOWZOO_DATA``;
where they are missing, the baselines that need them are left out, as JPEG XL is where no library writes it. What the
manifest holds of these, of the same images, and of other data sets stays.
"""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from flowzoo.data import Dataset, get_dataset
from flowzoo.errors import DataUnavailable
from flowzoo.manifest.read import Data, Manifest, Reference
from flowzoo.manifest.write import update_manifest
from tools.baselines import counts, files

MANIFEST = Path(__file__).resolve().parents[2] / "weights_manifest.json"
DATASETS = ("mnist", "cifar10")
"""The data sets of ``python -m tools.truth``, which are measured unless others are named."""
LEVELS = 256


class Baseline(NamedTuple):
    """A baseline's name, how it is made, and the bits per dimension of each image or of all."""

    name: str
    how: str
    figures: NDArray[np.float64] | float


def measure(dataset: str) -> list[Reference]:
    """Every baseline of a data set's test images, with what they are and where the data are from."""
    found = get_dataset(dataset)
    images = np.asarray(found.load("test").images)
    data = Data(
        id=found.id,
        preprocessing=found.preprocessing,
        split="test",
        num_images=len(images),
        terms=found.terms,
        release=found.release,
        digest=found.split("test").sha256,
    )
    return [_reference(row, data) for row in _rows(found, images)]


def _reference(row: Baseline, data: Data) -> Reference:
    """A row in the manifest's form; its standard error is that of a mean over images, and none of a single figure."""
    stderr = None
    if isinstance(row.figures, np.ndarray):
        stderr = float(np.std(row.figures, ddof=1) / math.sqrt(len(row.figures)))
    bpd = float(np.mean(row.figures))
    click.echo(f"  {row.name}: {bpd:.4f}" + (f" ± {stderr:.4f}" if stderr is not None else ""))
    return Reference(
        kind="baseline",
        name=row.name,
        data=data,
        unit="bits per dimension",
        figure=bpd,
        command=f"python -m tools.baselines {data.id}",
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "pillow")},
        },
        stderr=stderr,
        note=row.how,
    )


def with_references(manifest: Manifest, measured: Sequence[Reference]) -> Manifest:
    """The manifest with these references in place of those of the same names, and without those of other images.

    Args:
        manifest: As it is.
        measured: Of one data set, as it is today.
    """
    [data] = {reference.data.id: reference.data for reference in measured}.values()
    keys = {reference.key for reference in measured}
    kept = [
        reference
        for reference in manifest.references
        if reference.data.id != data.id
        or (reference.key not in keys and _images(reference.data) == _images(data))
    ]
    return dataclasses.replace(manifest, references=(*kept, *measured))


def _images(data: Data) -> tuple[str, int, str | None]:
    """What tells a data set's images from others of the same name."""
    return data.preprocessing, data.num_images, data.digest


def _rows(dataset: Dataset, images: NDArray[np.uint8]) -> Iterator[Baseline]:
    flat = images.reshape(len(images), -1)
    yield Baseline("uniform", "the same code for every level", math.log2(LEVELS))
    yield from _counted(dataset, flat)
    bound = counts.empirical_entropy(flat, LEVELS)
    yield Baseline(
        "independent pixels, bound", "counted on the test images: no such model has fewer bits", bound
    )
    for name in files.FORMATS:
        if files.available(name):
            yield Baseline(
                f"{name}, an image a file", "bytes of lossless files", files.file_bits(name, images)
            )
    yield Baseline("xz, all images in one file", "bytes of one file, preset 9e", files.stream_bits(images))


def _counted(dataset: Dataset, test: NDArray[np.uint8]) -> Iterator[Baseline]:
    """Histograms of the training images; none where these are not to be had."""
    try:
        training = dataset.load("train")
    except DataUnavailable as error:
        click.echo(f"histograms left out: {error}", err=True)
        return
    train = np.asarray(training.images).reshape(len(training), -1)
    add = counts.choose_smoothing(train, LEVELS)
    how = f"counted on {len(train):,} training images plus {add:g} a level"
    figures = counts.histogram(train, test, LEVELS, add)
    yield Baseline("one histogram", f"{how}, shared by all dimensions", figures)
    figures = counts.independent_dimensions(train, test, LEVELS, add)
    yield Baseline("independent pixels", f"{how}, for each dimension{_of_all(dataset, train, test)}", figures)
    if training.labels is not None:
        labels = np.asarray(training.labels)
        figures = counts.class_mixture(train, labels, test, LEVELS, add)
        yield Baseline(
            f"mixture of {len(np.unique(labels))} class marginals",
            f"{how}, for each class and dimension",
            figures,
        )


def _of_all(dataset: Dataset, train: NDArray[np.uint8], test: NDArray[np.uint8]) -> str:
    """Independent pixels as the truth test counts them, which other pages name: images to select on counted, too."""
    if dataset.id not in DATASETS:
        return ""
    held_out = np.asarray(dataset.load("valid").images)
    every = np.concatenate((train, held_out.reshape(len(held_out), -1)))
    bpd = counts.independent_dimensions(every, test, LEVELS, counts.TRUTH_SMOOTHING).mean()
    what = f"all {len(every):,} images that are not the test's plus {counts.TRUTH_SMOOTHING:g} a level"
    return f"; {bpd:.4f} if counted on {what}, as python -m tools.truth does"


@click.command()
@click.argument("datasets", nargs=-1)
@click.option("--manifest", type=click.Path(path_type=Path), default=MANIFEST)
def main(datasets: tuple[str, ...], manifest: Path) -> None:
    """Measures the baselines of these data sets, of MNIST and CIFAR-10 unless others are named."""
    for dataset in datasets or DATASETS:
        click.echo(dataset)
        measured = measure(dataset)
        update_manifest(manifest, lambda before, measured=measured: with_references(before, measured))  # type: ignore[misc]


if __name__ == "__main__":
    main()
