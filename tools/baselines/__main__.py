"""Measures the leaderboard's baselines: ``python -m tools.baselines [DATASET]...``, into ``docs/baselines.json``.

Training images are read from ``FLOWZOO_DATA``; where they are missing, the baselines that need them are left out, as
JPEG XL is where no library writes it. What the file holds of other data sets stays.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from flowzoo.data import Dataset, get_dataset
from flowzoo.errors import DataUnavailable
from tools.baselines import counts, files

FILE = Path(__file__).resolve().parents[2] / "docs" / "baselines.json"
DATASETS = ("mnist", "cifar10")
LEVELS = 256


def measure(dataset: str) -> dict[str, Any]:
    """Every baseline of a data set's test images, with what they are and where the data are from."""
    found = get_dataset(dataset)
    test = found.load("test")
    images = np.asarray(test.images)
    return {
        "release": found.release,
        "preprocessing": found.preprocessing,
        "num_images": len(images),
        "digest": found.split("test").sha256,
        "command": f"python -m tools.baselines {dataset}",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "pillow")},
        },
        "rows": list(_rows(found, images)),
    }


def _rows(dataset: Dataset, images: NDArray[np.uint8]) -> Iterator[dict[str, Any]]:
    flat = images.reshape(len(images), -1)
    yield _row("uniform", "the same code for every level", math.log2(LEVELS))
    yield from _counted(dataset, flat)
    bound = counts.empirical_entropy(flat, LEVELS)
    yield _row("independent pixels, bound", "counted on the test images: no such model has fewer bits", bound)
    for name in files.FORMATS:
        if files.available(name):
            yield _row(f"{name}, an image a file", "bytes of lossless files", files.file_bits(name, images))
    yield _row("xz, all images in one file", "bytes of one file, preset 9e", files.stream_bits(images))


def _counted(dataset: Dataset, test: NDArray[np.uint8]) -> Iterator[dict[str, Any]]:
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
    yield _row("one histogram", f"{how}, shared by all dimensions", figures)
    figures = counts.independent_dimensions(train, test, LEVELS, add)
    yield _row("independent pixels", f"{how}, for each dimension", figures)
    if training.labels is not None:
        labels = np.asarray(training.labels)
        figures = counts.class_mixture(train, labels, test, LEVELS, add)
        yield _row(
            f"mixture of {len(np.unique(labels))} class marginals",
            f"{how}, for each class and dimension",
            figures,
        )


def _row(name: str, how: str, figures: NDArray[np.float64] | float) -> dict[str, Any]:
    """A baseline; the standard error is that of a mean over images, and none where there is one figure."""
    bpd = float(np.mean(figures))
    stderr = None
    if isinstance(figures, np.ndarray):
        stderr = float(np.std(figures, ddof=1) / math.sqrt(len(figures)))
    click.echo(f"  {name}: {bpd:.4f}" + (f" ± {stderr:.4f}" if stderr is not None else ""))
    return {"name": name, "how": how, "bpd": bpd, "stderr": stderr}


@click.command()
@click.argument("datasets", nargs=-1)
def main(datasets: tuple[str, ...]) -> None:
    """Measures the baselines of these data sets, of MNIST and CIFAR-10 unless others are named."""
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    for dataset in datasets or DATASETS:
        click.echo(dataset)
        known[dataset] = measure(dataset)
        _write(known)


def _write(known: dict[str, Any]) -> None:
    text = json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False) + "\n"
    temporary = FILE.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(FILE)


if __name__ == "__main__":
    main()
