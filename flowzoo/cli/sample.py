"""``flowzoo sample``: images or vectors out of a model, or of several from the same latents."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowzoo.cli.model_options import (
    Numbers,
    batch_size_option,
    device_option,
    label_option,
    open_model,
    progress,
    seed_option,
    temperature_of,
)
from flowzoo.cli.output import json_option, note, print_json, print_line
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.evaluation.trained_model import Target


@dataclass(frozen=True, slots=True)
class Drawn:
    """Samples of one model at one temperature, with their log-probabilities in nats where asked for."""

    model: str
    temperature: float
    labels: list[int] | None
    images: Tensor
    log_prob: list[float] | None
    per_dim: list[float] | None
    unit: str

    def rows(self, seed: int) -> list[dict[str, Any]]:
        """What is known of each sample."""
        facts = {"model": self.model, "temperature": self.temperature, "seed": seed}
        found = [{**facts, "index": i} for i in range(len(self.images))]
        for i, row in enumerate(found):
            if self.labels is not None:
                row["label"] = self.labels[i]
            if self.log_prob is not None and self.per_dim is not None:
                row |= {"log_prob": self.log_prob[i], self.unit.replace("/", "_per_"): self.per_dim[i]}
        return found


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-n", "count", type=click.IntRange(1), help="How many [64; in rows 8].")
@click.option(
    "--temperature",
    "temperatures",
    type=Numbers(0),
    help="Factor on the latents [what the model recommends, else 1]; several, as 0.5,0.7,1, make rows.",
)
@label_option
@click.option(
    "--each-label",
    is_flag=True,
    help="Every class in turn, a column each in a grid [of 8 rows], for a conditional model.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="A grid FILE.png, an array FILE.npy, or a folder for a PNG each; of vectors FILE.csv or FILE.npy "
    "[samples.png, samples.csv].",
)
@seed_option
@click.option("--columns", type=click.IntRange(1), help="Images in a row.")
@click.option(
    "--captions/--no-captions", default=True, help="Write model, temperature and seed above the grid."
)
@click.option("--log-prob", is_flag=True, help="Compute the log-probability of each sample.")
@device_option
@batch_size_option
@json_option
def sample(
    names: tuple[str, ...],
    count: int | None,
    temperatures: tuple[float, ...] | None,
    label: int | None,
    each_label: bool,
    out: Path | None,
    seed: int,
    columns: int | None,
    captions: bool,
    log_prob: bool,
    device: str | None,
    batch_size: int,
    as_json: bool,
) -> None:
    """Draw from NAME (a model, a run's directory, or a path): images into a PNG grid, vectors into a table.

    Several models, or several temperatures, make a row each, from one set of latents. With --log-prob the bits
    per dimension stand under each image, and in a CSV beside an array or in a folder.
    """
    if out is not None and out.suffix.lower() not in ("", ".png", ".npy", ".csv"):
        raise click.UsageError(
            f"--out: name a file ending with .png, .npy or .csv, or a folder, not {out.name!r}; a grid is written "
            "as PNG."
        )
    targets = [open_model(name, device) for name in names]
    out = _destination(out, targets[0])
    asked = temperatures or (None,)
    rows_asked = len(targets) * len(asked)
    classes = _classes(targets, label) if each_label else 0
    n = count or _default_count(rows_asked, classes)
    _check_alike(targets, 0 if each_label else label)
    labels: list[int] | None = None
    if each_label:
        labels = [i % classes for i in range(n)]
    elif label is not None:
        labels = [label] * n
    with progress(n * rows_asked * (2 if log_prob else 1)) as advance:
        drawn = [
            _draw(target, value, n, labels, seed, batch_size, log_prob, advance)
            for target in targets
            for value in asked
        ]
    rows = [row for one in drawn for row in one.rows(seed)]
    if out.suffix.lower() == ".png":
        said = f"labels 0 to {classes - 1}" if each_label else f"label {label}" if label is not None else ""
        _write_grid(drawn, out, columns or classes or None, seed, captions, said)
    elif out.suffix.lower() == ".npy":
        _write_array(drawn, out)
    elif out.suffix.lower() == ".csv":
        _write_csv(out, _vector_rows(drawn, rows))
    else:
        _write_folder(drawn, out, rows)
    if log_prob and out.suffix.lower() == ".npy":
        _write_csv(out.with_suffix(".csv"), rows)
    if as_json:
        print_json({"out": str(out), "samples": rows})
    else:
        print_line(str(out))


def _destination(out: Path | None, target: Target) -> Path:
    """Where samples of this model go; said before any is drawn.

    Raises:
        InputError: Vectors are to go into a picture, or images into a table.
    """
    vectors = target.flow.data_kind == "vectors"
    if out is None:
        return Path("samples.csv" if vectors else "samples.png")
    if vectors and out.suffix.lower() not in (".csv", ".npy"):
        raise InputError(
            f"{target.name} draws vectors, of which there is no grid; name a table or an array, as -o samples.csv or "
            f"-o samples.npy. `flowzoo picture {target.name}` draws density and samples."
        )
    if not vectors and out.suffix.lower() == ".csv":
        raise InputError(f"{target.name} draws images; name a grid FILE.png, an array FILE.npy or a folder.")
    return out


def _default_count(rows: int, classes: int) -> int:
    """How many samples a row takes; of a single model at one temperature, how many a grid of eight rows takes."""
    columns = classes or 8
    return columns if rows > 1 else 8 * columns


def _classes(targets: list[Target], label: int | None) -> int:
    """How many classes all models have.

    Raises:
        UsageError: A label is asked for besides.
        InputError: A model has no labels, or others than the first.
    """
    if label is not None:
        raise click.UsageError("--label draws one class and --each-label all of them; give one of the two.")
    classes = 0
    for target in targets:
        labels = target.flow.labels
        if labels is None:
            raise InputError(
                f"{target.name} has no labels; leave --each-label out, or take a conditional model, as tarflow-digits."
            )
        if classes and labels.classes != classes:
            raise InputError(
                f"{target.name} has {labels.classes} classes and {targets[0].name} {classes}; draw them by two calls."
            )
        classes = labels.classes
    return classes


def _check_alike(targets: list[Target], label: int | None) -> None:
    """Checks, before anything is said or drawn, that all models know the label and draw things of one shape."""
    for target in targets:
        target.flow.context_of(label, 1)
    shapes = {target.flow.data_shape for target in targets}
    sizes = {target.flow.latent_dims for target in targets}
    if len(shapes) > 1 or len(sizes) > 1:
        found = ", ".join(f"{t.name} {'x'.join(map(str, t.flow.data_shape))}" for t in targets)
        raise InputError(f"one set of latents goes through models of one shape; these have {found}.")
    bases = {type(target.flow.base).__name__: target.name for target in targets}
    if len(bases) > 1:
        listed = ", ".join(f"{base} ({name})" for base, name in bases.items())
        note(f"The base densities differ: {listed}. One seed, and not the same latents.")


def _draw(
    target: Target,
    asked: float | None,
    n: int,
    labels: list[int] | None,
    seed: int,
    batch: int,
    log_prob: bool,
    advance: Any,
) -> Drawn:
    import torch

    from flowzoo.analysis.batches import draw, log_probs

    flow = target.flow
    temperature, why = temperature_of(asked, flow.card)
    note(f"Temperature {temperature:g}, {why}.")
    y = None if labels is None else torch.tensor(labels, device=next(flow.parameters()).device)
    images = draw(flow, n, y, temperature=temperature, seed=seed, batch_size=batch, advance=advance)
    if not log_prob:
        return Drawn(target.name, temperature, labels, images.cpu(), None, None, flow.unit)
    found = log_probs(flow, images, y, seed=seed, batch_size=batch, advance=advance)
    per_dim = flow.per_dim(found).tolist()
    return Drawn(target.name, temperature, labels, images.cpu(), found.tolist(), per_dim, flow.unit)


def _write_grid(
    drawn: list[Drawn], out: Path, columns: int | None, seed: int, captions: bool, labels: str
) -> None:
    import torch

    from flowzoo.analysis.captions import captioned_grid, save_picture
    from flowzoo.analysis.grids import save_grid

    images = torch.cat([one.images for one in drawn])
    first, several = drawn[0], len(drawn) > 1
    across = (
        len(first.images) if several else min(len(images), columns or -(-len(images) // _rows(len(images))))
    )
    models = list(dict.fromkeys(one.model for one in drawn))
    heat = list(dict.fromkeys(f"{one.temperature:g}" for one in drawn))
    facts = {"model": ", ".join(models), "temperature": ", ".join(heat), "seed": str(seed)}
    if not captions:
        save_grid(images, out, columns=across, temperature=first.temperature)
        return
    title = "   ".join(
        (facts["model"], f"temperature {facts['temperature']}", f"seed {seed}")
        + ((labels,) if labels else ())
    )
    names = []
    for one in drawn:
        heat_of = f"t = {one.temperature:g}"
        parts = [one.model] if len(models) > 1 else []
        names.append(",  ".join([*parts, heat_of] if len(heat) > 1 else parts))
    below = [f"{value:.2f}" for one in drawn for value in one.per_dim or ()]
    if below:
        title += f"   {first.unit} below"
    picture = captioned_grid(images, across, title=title, rows=names if several else (), captions=below)
    save_picture(picture, out, facts)


def _rows(count: int) -> int:
    """How many rows make a grid of so many images about square."""
    return max(1, round(math.sqrt(count)))


def _write_array(drawn: list[Drawn], out: Path) -> None:
    import numpy as np
    import torch

    from flowzoo.atomic import write_chunks

    buffer = io.BytesIO()
    np.save(buffer, torch.cat([one.images for one in drawn]).numpy())
    write_chunks(out, [buffer.getvalue()])


def _vector_rows(drawn: list[Drawn], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The numbers of each vector, as ``x1``, ``x2``, ..., before what else is known of it."""
    vectors = [vector for one in drawn for vector in one.images.tolist()]
    numbers = [{f"x{i}": value for i, value in enumerate(vector, start=1)} for vector in vectors]
    return [found | row for found, row in zip(numbers, rows, strict=True)]


def _write_folder(drawn: list[Drawn], out: Path, rows: list[dict[str, Any]]) -> None:
    from flowzoo.analysis.grids import save_grid

    if out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"{out} is not empty; name a new folder, so that no image of another call is among these."
        )
    several, i = len(drawn) > 1, 0
    for one in drawn:
        stem = f"{Path(one.model).name}-t{one.temperature:g}-" if several else ""
        for k, image in enumerate(one.images):
            rows[i]["file"] = f"{stem}{k:05d}.png"
            save_grid(image[None], out / rows[i]["file"], border=0, scale=1, temperature=one.temperature)
            i += 1
    _write_csv(out / "samples.csv", rows)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    from flowzoo.atomic import write_chunks

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_chunks(path, [text.getvalue().encode()])
