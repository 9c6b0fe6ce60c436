"""Options and steps that the commands share which do something with a model and images."""

from __future__ import annotations

import math
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flowzoo.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowzoo.evaluation.trained_model import Target
    from flowzoo.flow import Flow

Command = TypeVar("Command", bound="Callable[..., Any]")

DELAY = 2.0
"""Seconds of work after which progress is shown."""

device_option = click.option("--device", help="cpu, cuda or cuda:1; a GPU if there is one.")
batch_size_option = click.option(
    "--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images at a time."
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="The same seed, the same result; on another device or in other batches but for rounding.",
)
label_option = click.option(
    "--label", type=click.IntRange(0), help="Class of the images, for a conditional model."
)
root_option = click.option(
    "--data-root", type=click.Path(file_okay=False), help="Where data sets are [$FLOWZOO_DATA]."
)
limit_option = click.option("--limit", type=click.IntRange(1), help="Only the first images of a source.")


def out_option(default: str, text: str = "A PNG file.") -> Callable[[Command], Command]:
    """The option ``-o``, a file to write."""
    path = click.Path(dir_okay=False, path_type=Path)
    return click.option("-o", "--out", type=path, default=default, show_default=True, help=text)


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers with commas between them, such as ``0.5,0.7,1``.

    Args:
        least: The least that is allowed.
    """

    name = "numbers"

    def __init__(self, least: float = -math.inf) -> None:
        self.least = least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """The numbers of a text."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number, nor several with commas between them.", param, ctx)
        if not all(math.isfinite(number) and number >= self.least for number in numbers):
            wanted = "finite" if self.least == -math.inf else f"finite and at least {self.least:g}"
            self.fail(f"{value!r}: every number has to be {wanted}.", param, ctx)
        return numbers


def open_model(name: str, device: str | None) -> Target:
    """The model of a name, its flow on the device that was asked for, in eval mode.

    Raises:
        FlowzooError: There is no such model or device, or its weights are not to be had.
    """
    from flowzoo.devices import find_device
    from flowzoo.evaluation.trained_model import find_target

    place = find_device(device, computing=True)
    target = find_target(name)
    target.flow.to(place).eval()
    return target


def on_device(flow: Flow, images: Any) -> Any:
    """Images on the device of the flow."""
    parameter = next(flow.parameters(), None)
    return images if parameter is None else images.to(parameter.device)


def temperature_of(asked: float | None, card: Any) -> tuple[float, str]:
    """The temperature that was asked for, else the one that the model recommends, else 1; and why it is that."""
    if asked is not None:
        return asked, "as asked for"
    details = getattr(card, "details", {})
    found = getattr(card, "recommended_temperature", None) or details.get("recommended_temperature")
    if isinstance(found, int | float) and 0 < found < 100:
        return float(found), "which the model recommends"
    return 1.0, "the model's own density"


def say_temperature(asked: float | None, card: Any) -> float:
    """As :func:`temperature_of`, said on stderr."""
    found, why = temperature_of(asked, card)
    note(f"Temperature {found:g}, {why}.")
    return found


@contextmanager
def progress(total: int, unit: str = "image") -> Iterator[Callable[[int], None]]:
    """A function that moves a bar on, which appears on stderr where the work takes two seconds or more."""
    from flowzoo.evaluation.progress import Bar

    bar = Bar(total, unit=unit, delay=DELAY)
    try:
        yield bar.advance
    finally:
        bar.close()
