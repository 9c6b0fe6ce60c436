"""``flowzoo convert``: checkpoints of other implementations, imported."""

from __future__ import annotations

from pathlib import Path

import click

from flowzoo.cli.output import fields, json_option, note, print_json
from flowzoo.convert import LAYOUTS


def _image_shape(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int, int] | None:
    if value is None:
        return None
    numbers = value.lower().replace("x", ",").split(",")
    if len(numbers) != 3 or not all(number.strip().isdecimal() and int(number) for number in numbers):
        raise click.BadParameter(f"{value!r} is no image shape; write channels,height,width such as 3,32,32.")
    channels, height, width = map(int, numbers)
    return channels, height, width


@click.command(
    epilog=f"Layouts: {', '.join(LAYOUTS)}. The checkpoint is a torch.save file with a state dict, or an .npz "
    "of variables; it is read as tensors alone and nothing in it is run."
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--from", "layout", metavar="LAYOUT", help="Whose checkpoint it is; told by the tensors' names."
)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory to write, new or empty."
)
@click.option(
    "--image-shape",
    metavar="C,H,W",
    callback=_image_shape,
    help="Shape of the images, where no tensor tells.",
)
@click.option("--n-bits", type=click.IntRange(1, 8), help="Bits per value, where no tensor tells.")
@click.option("--label", type=click.IntRange(0), help="The class to convert, of a class-conditional model.")
@click.option(
    "--permutation", type=click.Choice(["reverse"]), help="What is between couplings, where no tensor tells."
)
@click.option(
    "--state", metavar="KEY", help="The state dict to take, where the file holds several (net, ema)."
)
@click.option("--name", help="What to call the model; the directory's name unless given.")
@json_option
def convert(
    checkpoint: Path,
    layout: str | None,
    out: Path,
    image_shape: tuple[int, int, int] | None,
    n_bits: int | None,
    label: int | None,
    permutation: str | None,
    state: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Import CHECKPOINT of another implementation, so that flowzoo.load("path:DIR") loads its model.

    The log-probabilities are those of that implementation; see docs/convert.md for what each of them computes.
    """
    from flowzoo.convert.core import convert_checkpoint

    result = convert_checkpoint(
        checkpoint,
        out,
        layout=layout,
        name=name,
        state=state,
        image_shape=image_shape,
        n_bits=n_bits,
        label=label,
        permutation=permutation,
    )
    if as_json:
        print_json(
            {
                "layout": result.layout,
                "architecture": result.architecture,
                "config": result.config,
                "num_params": result.num_params,
                "path": str(result.path),
                "sha256": result.sha256,
                "size": result.size,
                "notes": list(result.notes),
            }
        )
        return
    fields(
        (
            ("layout", result.layout),
            ("architecture", result.architecture),
            ("image shape", "x".join(map(str, result.config["image_shape"]))),
            ("bits", result.config["n_bits"]),
            ("parameters", f"{result.num_params:,}"),
            ("sha256", result.sha256),
            ("weights", result.path),
        )
    )
    for text in result.notes:
        note(text)
    note(f'Load it with flowzoo.load("path:{out}").')
