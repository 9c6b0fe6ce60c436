"""``flowzoo picture``: a flow over one or two numbers beside its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowzoo.cli.output import json_option, note, print_json, print_line
from flowzoo.errors import InputError


@click.command()
@click.argument("name")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="picture.png",
    show_default=True,
    help="A PNG file.",
)
@click.option(
    "--data", "dataset", metavar="ID", help="Vectors to compare with [those that it was trained for]."
)
@click.option("--split", default="test", show_default=True, help="train, valid or test.")
@click.option(
    "--data-root", type=click.Path(file_okay=False), help="Folder to look in instead of $FLOWZOO_DATA."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="The same seed, the same samples.",
)
@click.option("--device", help="cpu, cuda or cuda:1; a GPU if there is one.")
@json_option
def picture(
    name: str,
    out: Path,
    dataset: str | None,
    split: str,
    data_root: str | None,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Draw density, samples and layers of NAME, a model or run over vectors of one or two numbers, into a PNG.

    The caption states the mean negative log density on the split in nats; where the true density is known, its entropy
    and the Kullback-Leibler divergence of the model from it, estimated on the same vectors.
    """
    if out.suffix.lower() != ".png":
        raise click.UsageError(
            f"--out: a picture is written as PNG; name a file ending with .png, not {out.name!r}."
        )
    from flowzoo.analysis.densities import save_picture
    from flowzoo.data.registry import get_dataset
    from flowzoo.data.vectors import VectorSet
    from flowzoo.devices import find_device
    from flowzoo.evaluation.trained_model import find_target

    target = find_target(name)
    if target.flow.data_kind != "vectors":
        raise InputError(f"{name} is a model of images; draw a grid of them by `flowzoo sample {name}`.")
    if not (dataset := dataset or target.dataset):
        raise InputError(
            f"Nothing says on which data {name} was trained; give --data, such as points:two-moons."
        )
    data = get_dataset(dataset).load(split, data_root)
    if not isinstance(data, VectorSet):
        raise InputError(
            f"{dataset} holds images; {name} is a model of vectors of {target.flow.dims} numbers."
        )
    flow = target.flow.to(find_device(device, computing=True))
    fit = save_picture(flow, data, out, name=_title(target.name), seed=seed)
    if as_json:
        print_json(_row(target.name, data, out, fit))
        return
    known = "" if fit.gap is None else f", {fit.gap:+.4f} from the true entropy {fit.entropy:.4f}"
    if fit.divergence is not None:
        known += f"; KL divergence {fit.divergence:.4f} ± {fit.divergence_error:.4f}"
    note(f"{fit.nats:.4f} ± {fit.error:.4f} nats on {fit.count:,} vectors{known}.")
    print_line(str(out))


def _title(name: str) -> str:
    """A run's folder without the folders that it lies in; any other name as it is."""
    return Path(name).name if Path(name).exists() else name


def _row(name: str, data: Any, out: Path, fit: Any) -> dict[str, Any]:
    return {
        "name": name,
        "dataset": data.id,
        "split": data.split,
        "picture": str(out),
        "vectors": fit.count,
        "nats": fit.nats,
        "standard_error": fit.error,
        "true_entropy": fit.entropy,
        "divergence": fit.divergence,
        "divergence_error": fit.divergence_error,
    }
