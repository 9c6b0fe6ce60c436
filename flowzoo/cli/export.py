"""``flowzoo export``: a run as a directory with weights, card and recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowzoo.cli.output import print_line


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The directory."
)
@click.option("--name", help="The model's name [the recipe's].")
@click.option("--which", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="How the weights are stored.",
)
def export(run: Path, out: Path, name: str | None, which: Any, dtype: str) -> None:
    """Write the averaged weights of RUN as a directory that flowzoo.load("path:DIR") reads.

    The directory must be missing, empty or an earlier export of the same model. It holds the weights, flowzoo.json with
    their fingerprint, and the recipe of every stage of the training; no path of this machine.
    """
    import torch

    from flowzoo.training.export import export_weights

    stored = None if dtype == "float32" else getattr(torch, dtype)
    print_line(str(export_weights(run, out, which=which, dtype=stored, name=name)))
