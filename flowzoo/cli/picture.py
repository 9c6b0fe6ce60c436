"""``flowzoo picture``: a flow over one or two numbers beside its data, or images on their way from noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowzoo.cli.model_options import say_temperature
from flowzoo.cli.output import json_option, note, print_json, print_line
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from flowzoo.evaluation.trained_model import Target

ROWS = 6
"""Images in a picture of a model of images."""


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
@click.option("--split", help="Of the vectors: train, valid or test [test].")
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
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    help="Of images: factor on the latents [the recommended one, else 1].",
)
@click.option("--device", help="cpu, cuda or cuda:1; a GPU if there is one.")
@json_option
def picture(
    name: str,
    out: Path,
    dataset: str | None,
    split: str | None,
    data_root: str | None,
    seed: int,
    temperature: float | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Draw what NAME, a model or run, does layer by layer, into a PNG.

    Of vectors of one or two numbers: the data, the densities, samples, and below the data on their way to the latent.
    The caption states the mean negative log density on the split in nats; where the true density is known, its entropy
    and the Kullback-Leibler divergence of the model from it, estimated on the same vectors.

    Of images: samples on their way from noise, a column for the noise, for the values after some of the layers, and
    for the images; of a model with labels, an image of each of the first.
    """
    if out.suffix.lower() != ".png":
        raise click.UsageError(
            f"--out: a picture is written as PNG; name a file ending with .png, not {out.name!r}."
        )
    from flowzoo.devices import find_device
    from flowzoo.evaluation.trained_model import find_target

    target = find_target(name)
    images = target.flow.data_kind == "images"
    kind, other = ("images", "vectors") if images else ("vectors", "images")
    of_vectors = {"--data": dataset, "--split": split, "--data-root": data_root}
    of_other = of_vectors if images else {"--temperature": temperature}
    for option, value in of_other.items():
        if value is not None:
            raise click.UsageError(
                f"{option} is of models of {other}; {name} is one of {kind}. Leave it out."
            )
    target.flow.to(find_device(device, computing=True))
    if images:
        found = _draw_images(target, out, temperature, seed)
    else:
        found = _draw_vectors(target, out, dataset, split or "test", data_root, seed)
    if as_json:
        print_json({"name": target.name, "picture": str(out), **found})
    else:
        print_line(str(out))


def _draw_images(target: Target, out: Path, asked: float | None, seed: int) -> dict[str, Any]:
    """Draws images on their way from noise; what ``--json`` says of them."""
    import torch

    from flowzoo.analysis.captions import captioned_grid, save_picture
    from flowzoo.analysis.generation import generation_steps

    flow = target.flow
    temperature = say_temperature(asked, flow.card)
    number = ROWS if flow.labels is None else min(ROWS, flow.labels.classes)
    y = None if flow.labels is None else torch.arange(number, device=next(flow.parameters()).device)
    steps = generation_steps(flow, number, y, temperature=temperature, seed=seed)
    layers = steps[-1].layers
    save_picture(
        captioned_grid(
            torch.stack([step.images for step in steps], dim=1).flatten(0, 1),
            len(steps),
            title=f"{_title(target.name)}: from noise to images",
            headings=["noise", *(f"{step.layers} of {layers}" for step in steps[1:-1]), "images"],
            rows=() if y is None else [str(label) for label in y.tolist()],
        ),
        out,
        {"model": target.name, "temperature": f"{temperature:g}", "seed": str(seed)},
    )
    shown = [{"layers": step.layers, "name": step.name} for step in steps]
    return {"temperature": temperature, "seed": seed, "images": number, "steps": shown}


def _draw_vectors(
    target: Target, out: Path, dataset: str | None, split: str, data_root: str | None, seed: int
) -> dict[str, Any]:
    """Draws densities, samples and layers; what ``--json`` says of them."""
    from flowzoo.analysis.densities import save_picture
    from flowzoo.data.registry import get_dataset
    from flowzoo.data.vectors import VectorSet

    if not (dataset := dataset or target.dataset):
        raise InputError(
            f"Nothing says on which data {target.name} was trained; give --data, such as points:two-moons."
        )
    data = get_dataset(dataset).load(split, data_root)
    if not isinstance(data, VectorSet):
        raise InputError(
            f"{dataset} holds images; {target.name} is a model of vectors of {target.flow.dims} numbers."
        )
    fit = save_picture(target.flow, data, out, name=_title(target.name), seed=seed)
    known = "" if fit.gap is None else f", {fit.gap:+.4f} from the true entropy {fit.entropy:.4f}"
    if fit.divergence is not None:
        known += f"; KL divergence {fit.divergence:.4f} ± {fit.divergence_error:.4f}"
    note(f"{fit.nats:.4f} ± {fit.error:.4f} nats on {fit.count:,} vectors{known}.")
    return {
        "dataset": data.id,
        "split": data.split,
        "vectors": fit.count,
        "nats": fit.nats,
        "standard_error": fit.error,
        "true_entropy": fit.entropy,
        "divergence": fit.divergence,
        "divergence_error": fit.divergence_error,
    }


def _title(name: str) -> str:
    """A run's folder without the folders that it lies in; any other name as it is."""
    return Path(name).name if Path(name).exists() else name
