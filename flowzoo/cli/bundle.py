"""``flowzoo bundle``: ship a run's weights inside its plugin."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from flowzoo.cli.output import json_option, print_json, table
from flowzoo.manifest.read import core_manifest_path


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", help="The model's name in the manifest [the recipe's].")
@click.option("--note", help="What a user should know before using it [that of the entry it replaces].")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="How the weights are stored; what is measured is what was stored.",
)
@click.option(
    "--license", "license_id", default="Apache-2.0", show_default=True, help="Of the weights, SPDX."
)
@click.option(
    "--manifest",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The manifest that the entry goes into [flowzoo's own].",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    help="Noise samples an image of the measured figure: a tighter bound, as many times the work to verify "
    "[those of the entry it replaces, else 1].",
)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where data sets are [$FLOWZOO_DATA].")
@json_option
def bundle(run: Path, dtype: str, manifest: Path | None, as_json: bool, **options: Any) -> None:
    """Ship the best weights of RUN inside the plugin that builds it.

    For maintainers, in a checkout: exports the averaged weights, measures them on the whole test split, takes their
    fingerprint, and writes the file into the plugin's package and the entry into the manifest. An entry that was
    never on the Hub is replaced; otherwise the model gets a new version.
    """
    import torch

    from flowzoo.publishing.bundle import bundle_run

    stored = None if dtype == "float32" else getattr(torch, dtype)
    entry = bundle_run(run, manifest or core_manifest_path(), dtype=stored, **options)
    if as_json:
        print_json(dataclasses.asdict(entry))
        return
    assert entry.weights is not None
    assert entry.measured is not None
    row = (
        entry.key,
        f"{entry.measured.bpd:.4f}",
        f"{entry.measured.stderr:.4f}",
        entry.weights.size,
        entry.weights.filename,
    )
    table(("model", "bpd", "stderr", "bytes", "file"), [row], right=("bpd", "stderr", "bytes"))
