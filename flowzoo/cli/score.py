"""``flowzoo score``: bits per dimension and outlier scores of images."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from flowzoo.cli.model_options import (
    batch_size_option,
    device_option,
    label_option,
    limit_option,
    on_device,
    open_model,
    progress,
    root_option,
    seed_option,
    temperature_of,
)
from flowzoo.cli.output import fields, json_option, note, print_json, table

if TYPE_CHECKING:
    from flowzoo.analysis.scores import Compressor, Scores
    from flowzoo.analysis.sources import Chosen
    from flowzoo.evaluation.trained_model import Target

COLUMNS = ("image", "set", "bits_per_dim", "complexity", "likelihood", "typicality", "complexity_corrected")
LISTED = 20
"""Images up to which the table has a line for each."""

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("name")
@click.argument("images")
@click.option("--against", help="A second set of images that should score as unusual; gives AUROC.")
@click.option(
    "--reference", help="Usual images whose mean typicality is measured from [the manifest's figure]."
)
@click.option(
    "--compressor",
    type=click.Choice(["png", "zlib"]),
    default="png",
    show_default=True,
    help="Whose size is the complexity of an image.",
)
@click.option(
    "--samples", type=click.IntRange(1), default=1, show_default=True, help="Draws of noise an image."
)
@click.option("--csv", "csv_file", type=_FILE, help="Write a CSV, one image a row.")
@click.option("--histogram", type=_FILE, help="Draw a histogram into a PNG file.")
@click.option(
    "--by",
    type=click.Choice(["likelihood", "typicality", "complexity_corrected"]),
    default="likelihood",
    show_default=True,
    help="The score of the histogram.",
)
@seed_option
@limit_option
@label_option
@root_option
@device_option
@batch_size_option
@json_option
def score(
    name: str,
    images: str,
    against: str | None,
    reference: str | None,
    csv_file: Path | None,
    histogram: Path | None,
    by: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Score IMAGES with the model NAME: bits per dimension, and how unusual each image is.

    Of every score more means more unusual. Likelihood: the bits themselves, by which plain images pass as usual
    (to most models an all-black image is the likeliest digit). Typicality: the distance from the mean of usual images.
    Complexity-corrected: the bits less those of the image compressed. All are in bits per dimension.
    """
    _check_usage(against, csv_file, histogram)
    from flowzoo.analysis.histogram import save_histogram

    target = open_model(name, options["device"])
    sets = [source for source in (images, against) if source is not None]
    chosen = [_choose(target, source, options) for source in sets]
    entropy = _entropy(target, reference, options)
    found = [_score(target, one, entropy, options) for one in chosen]
    if entropy is None:  # the first set is what is usual
        found = [type(one)(one.bits_per_dim, one.complexity, found[0].entropy) for one in found]
    rows = [
        row
        for source, one, scores in zip(sets, chosen, found, strict=True)
        for row in _rows(source, one, scores)
    ]
    if csv_file is not None:
        _write_csv(csv_file, rows)
    report = _report(target, sets, found)
    if histogram is not None:
        values = {source: getattr(scores, by) for source, scores in zip(sets, found, strict=True)}
        title = f"{target.name}   {by.replace('_', '-')}"
        save_histogram(values, histogram, title=title)
    if as_json:
        print_json({**report, "images": rows})
    else:
        _show(report, rows)


def _check_usage(against: str | None, csv_file: Path | None, histogram: Path | None) -> None:
    if histogram is not None and histogram.suffix.lower() != ".png":
        raise click.UsageError(f"--histogram: name a file ending with .png, not {histogram.name!r}.")
    if csv_file is not None and csv_file.suffix.lower() == ".png":
        raise click.UsageError(
            f"--csv: {csv_file.name!r} is the name of a picture; name a file ending with .csv."
        )
    if against is not None and not against:
        raise click.UsageError("--against: names no images.")


def _choose(target: Target, source: str, options: dict[str, Any]) -> Chosen:
    from flowzoo.analysis.batches import require_images
    from flowzoo.analysis.sources import choose

    require_images(target.flow, "a score")
    heat = temperature_of(None, target.flow.card)[0]
    return choose(source, target.flow, limit=options["limit"], temperature=heat, root=options["data_root"])


def _entropy(target: Target, reference: str | None, options: dict[str, Any]) -> float | None:
    """Mean bits/dim of usual images: of a reference set, else the figure of the model's manifest entry."""
    if reference is not None:
        chosen = _choose(target, reference, options)
        return float(_score(target, chosen, None, options).bits_per_dim.mean())
    if target.entry is not None and target.entry.measured is not None:
        return target.entry.measured.bpd
    note("No --reference and no figure in a manifest: typicality is measured from the mean of IMAGES.")
    return None


def _score(target: Target, chosen: Chosen, entropy: float | None, options: dict[str, Any]) -> Scores:
    from flowzoo.analysis import scores

    with progress(len(chosen)) as advance:
        return scores.score(
            target.flow,
            on_device(target.flow, chosen.images),
            options["label"],
            entropy=entropy,
            compressor=cast("Compressor", options["compressor"]),
            samples=options["samples"],
            seed=options["seed"],
            batch_size=options["batch_size"],
            advance=advance,
        )


def _rows(source: str, chosen: Chosen, scores: Scores) -> list[dict[str, Any]]:
    columns = [getattr(scores, name).tolist() for name in COLUMNS[2:]]
    return [
        dict(zip(COLUMNS, (name, source, *(_finite(v) for v in values)), strict=True))
        for name, *values in zip(chosen.names, *columns, strict=True)
    ]


def _finite(value: float) -> float | None:
    """A number that JSON has; an image of probability zero has none."""
    return value if math.isfinite(value) else None


def _report(target: Target, sets: list[str], found: list[Scores]) -> dict[str, Any]:
    """Means of each set, and how well each score tells two sets apart."""
    from flowzoo.analysis.scores import SCORES, auroc

    means = {source: _finite(float(s.bits_per_dim.mean())) for source, s in zip(sets, found, strict=True)}
    report: dict[str, Any] = {
        "model": target.name,
        "entropy": _finite(found[0].entropy),
        "mean_bits_per_dim": means,
    }
    if len(found) == 2:
        report["auroc"] = {name: auroc(getattr(found[0], name), getattr(found[1], name)) for name in SCORES}
    return report


def _show(report: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    if len(rows) <= LISTED:
        columns = (COLUMNS[0], *COLUMNS[2:4], *COLUMNS[5:])
        cells = [
            [row[c] if c == "image" or row[c] is None else f"{row[c]:.4f}" for c in columns] for row in rows
        ]
        table(
            [column.replace("_", " ") for column in columns],
            cells,
            right=[c.replace("_", " ") for c in columns[1:]],
        )
    means = report["mean_bits_per_dim"]
    pairs: list[tuple[str, object]] = [
        (f"mean of {source}", "not finite" if mean is None else f"{mean:.4f} bits/dim")
        for source, mean in means.items()
    ]
    if report["entropy"] is not None:
        pairs.append(("typicality from", f"{report['entropy']:.4f} bits/dim"))
    pairs += [(f"AUROC by {k.replace('_', '-')}", f"{v:.4f}") for k, v in report.get("auroc", {}).items()]
    fields(pairs)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    from flowzoo.atomic import write_chunks

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_chunks(path, [text.getvalue().encode()])
