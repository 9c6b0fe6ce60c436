"""Measures what older entries of the manifest lack: ``python -m tools.complete [NAME...]``.

The share of finite samples; the figure of one noise sample an image where the recorded one is of several, and of eight
where it is of one; the figure under uniform noise where the recorded one is under learned noise; the size of the images
as a file where the model can compress; and what follows from the config: kind of inverse and passes. Figures that are
there stay as they are.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from flowzoo.codec.container import CODEC_VERSION
from flowzoo.codec.model import HasIntegerModel
from flowzoo.data import get_dataset
from flowzoo.errors import DataUnavailable
from flowzoo.evaluation.measure import evaluate
from flowzoo.evaluation.sampling import count_finite
from flowzoo.factory import build_flow, resolve
from flowzoo.manifest.schema import Compressed, Entry
from flowzoo.manifest.write import read_manifest, write_entry
from flowzoo.publishing.figures import (
    SEVERAL,
    gains_by_samples,
    kinds_of,
    several_samples_of,
    uniform_noise_of,
)
from flowzoo.weights.load import load
from tools.announce import ROOT
from tools.weigh import of_model


def completed(entry: Entry, data_root: Path | None) -> Entry:
    """The entry with everything that can be measured here."""
    if entry.sampling_passes is None:
        _, _, config = resolve(entry.architecture, entry.config)
        kinds = kinds_of(build_flow(entry.architecture, config, device="meta"))
        entry = dataclasses.replace(
            entry, **{name: kinds[name] for name in ("inverse_kind", "density_passes", "sampling_passes")}
        )
    if entry.sampling is None:
        entry = dataclasses.replace(entry, sampling=count_finite(load(entry.key)))
    try:
        return _with_other_noise(_with_file(entry, data_root), data_root)
    except DataUnavailable as error:
        click.echo(f"{entry.key}: {error}", err=True)
        return entry


def _with_file(entry: Entry, data_root: Path | None) -> Entry:
    """The entry with the size of its images as a file, if its model can compress."""
    _, _, config = resolve(entry.architecture, entry.config)
    able = isinstance(build_flow(entry.architecture, config, device="meta").bijector, HasIntegerModel)
    if not able or entry.compressed is not None:
        return entry
    images = get_dataset(entry.data.id).load(entry.data.split, data_root)[:]
    _, integers, file = of_model(load(entry.key), images, entry.name)
    found = Compressed(
        size=round(file.size),
        bpd=8 * file.size / images.numel(),
        integers=8 * integers.size / images.numel(),
        codec=CODEC_VERSION,
        num_images=len(images),
        command=f"flowzoo compress {entry.data.id} -m {entry.key} -o {entry.data.id}.flz",
    )
    return dataclasses.replace(entry, compressed=found)


def _with_other_noise(entry: Entry, data_root: Path | None) -> Entry:
    """The entry with the figures of one sample and of uniform noise, where they are other than the measured one."""
    measured = entry.measured
    if measured is None:
        return entry
    if measured.samples > 1 and entry.one_sample_bpd is None:
        found = evaluate(entry.key, samples=1, audit=False, data_root=data_root)
        entry = dataclasses.replace(entry, one_sample_bpd=found.bpd)
    if measured.samples == 1 and entry.several_samples is None and gains_by_samples(load(entry.key)):
        found = evaluate(entry.key, samples=SEVERAL, audit=False, data_root=data_root)
        entry = dataclasses.replace(entry, several_samples=several_samples_of(found))
    if measured.dequantization == "variational" and entry.uniform_noise is None:
        found = evaluate(entry.key, noise="uniform", data_root=data_root)
        entry = dataclasses.replace(entry, uniform_noise=uniform_noise_of(found))
    return entry


@click.command()
@click.argument("names", nargs=-1)
@click.option("--manifest", type=click.Path(path_type=Path), default=ROOT / "weights_manifest.json")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where data sets are [$FLOWZOO_DATA].")
def main(names: tuple[str, ...], manifest: Path, data_root: Path | None) -> None:
    """Completes the entries of these names; of all that have weights if none is given."""
    for entry in read_manifest(manifest).entries:
        if entry.weights is None or (names and entry.name not in names):
            continue
        after = completed(entry, data_root)
        if after != entry:
            write_entry(manifest, after)
            click.echo(f"completed {entry.key}: {after.sampling}", err=True)


if __name__ == "__main__":
    main()
