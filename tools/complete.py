"""Measures what older entries of the manifest lack: ``python -m tools.complete [NAME...]``.

The share of finite samples, the figure of one noise sample an image where the recorded one is of several, and what
follows from the config: kind of inverse and passes. Figures that are there stay as they are.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from flowzoo.errors import DataUnavailable
from flowzoo.evaluation.measure import evaluate
from flowzoo.evaluation.sampling import count_finite
from flowzoo.factory import build_flow, resolve
from flowzoo.manifest.schema import Entry
from flowzoo.manifest.write import read_manifest, write_entry
from flowzoo.publishing.figures import kinds_of
from flowzoo.weights.load import load
from tools.announce import ROOT


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
    measured = entry.measured
    if measured is None or measured.samples == 1 or entry.one_sample_bpd is not None:
        return entry
    try:
        found = evaluate(
            entry.key, samples=1, seed=measured.seed, dtype=measured.dtype, audit=False, data_root=data_root
        )
    except DataUnavailable as error:
        click.echo(f"{entry.key}: {error}", err=True)
        return entry
    return dataclasses.replace(entry, one_sample_bpd=found.bpd)


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
