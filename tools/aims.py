"""Writes docs/aims.md, what the models were to reach and what they did: ``python -m tools.aims [--check]``.

Aims, and estimates of what the rest would take, are in ``docs/aims.json``; figures and hours come from the manifest,
and a model of points' divergence from its picture, into which ``flowzoo picture`` writes it. ``--check`` writes nothing
and fails if the page differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import click

from flowzoo.manifest.read import Entry, Manifest, parse
from tools.beside import captions_of, divergences_of
from tools.cells import NOTHING, one_sample, published, table, wide

ROOT = Path(__file__).resolve().parent.parent
AIMS = "docs/aims.json"
PAGE = "docs/aims.md"

INTRODUCTION = """\
<!-- generated from docs/aims.json and weights_manifest.json by `python -m tools.aims`; edit those, not this -->

# Aims

What the zoo's models were to reach, and what they did. All were trained on CPU cores, some hours each; no GPU was at
hand. Images: bits per dimension of the test split with one noise sample an image, learned noise included. Points: the
Kullback-Leibler divergence from the true density, in nats. Models with hours in place of a figure are to be as good as
so many core-hours make them.
"""

SHORT = """\
## What fell short

Each model whose aim is not reached, each that was given fewer hours than it was to have, and each that has no weights,
with what the rest would take. The estimates go by the curves and hold for one core. The curves are those of the weights
that are here.
"""


UNRECORDED = """\
## Recipes that are not known

Of these models the resolved recipe of some stage was not kept, and weights cannot tell it. What is known stands in the
commands and notes of their cards; trained anew, they would have it: {models}.
"""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What one model is to reach.

    Attributes:
        model: Its name in the manifest.
        aim: The greatest figure that reaches it; None where none was set.
        hours: The core-hours that it was to be given, where no figure was set.
        figure: Bits per dimension with one noise sample an image, or the divergence from the true density in nats.
        note: What a reader has to know of the aim or of the figure.
        left: What the rest would take, and where the estimate comes from.
    """

    model: str
    aim: float | None = None
    hours: float | None = None
    figure: Literal["one sample", "divergence"] = "one sample"
    note: str = ""
    left: str = ""


@dataclass(frozen=True)
class Outcome:
    """An aim beside what was reached.

    Attributes:
        aim: The aim.
        entry: The model.
        reached: Its figure; None where there is none.
    """

    aim: Aim
    entry: Entry
    reached: float | None

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None where none was set."""
        if self.aim.aim is None:
            return None
        return self.reached is not None and self.reached <= self.aim.aim

    @property
    def short(self) -> bool:
        """Whether the model is to be explained: its aim or its hours are not reached, or it has no weights."""
        given = 0.0 if self.entry.training is None else self.entry.training.hours
        hurried = self.aim.hours is not None and round(given, 1) < self.aim.hours
        return self.met is False or hurried or self.entry.weights is None


def outcomes(aims: list[Aim], manifest: Manifest, divergences: Mapping[str, float]) -> list[Outcome]:
    """Each aim with its model and the figure reached.

    Args:
        aims: The aims, in the order of the page.
        manifest: The models.
        divergences: Of models of points, by name.

    Raises:
        click.ClickException: An aim's model is not in the manifest, or falls short and no word says of what.
    """
    found = []
    for aim in aims:
        entry = manifest.default(aim.model)
        if entry is None:
            raise click.ClickException(
                f"{AIMS} names {aim.model!r}, which the manifest has not; mend the name."
            )
        figure = one_sample(entry) if aim.figure == "one sample" else divergences.get(aim.model)
        outcome = Outcome(aim, entry, None if figure in (None, NOTHING) else float(figure))
        if outcome.short and not aim.left:
            raise click.ClickException(
                f"{aim.model} falls short; say under 'left' in {AIMS} what the rest takes."
            )
        found.append(outcome)
    return found


def page(found: list[Outcome], curves: set[str], captions: Mapping[str, str] = MappingProxyType({})) -> str:
    """The page.

    Args:
        found: The aims with what was reached.
        curves: Names of the files in ``docs/images`` that are there.
        captions: What a reader has to know of a model's curve, by name.
    """
    rows = [
        (
            f"[`{outcome.entry.name}`](models/{outcome.entry.name}.md)",
            NOTHING if outcome.aim.aim is None else f"{outcome.aim.aim:g}",
            NOTHING if outcome.reached is None else f"{outcome.reached:.4f}",
            {True: "yes", False: "**no**", None: NOTHING}[outcome.met],
            _hours(outcome),
            published(outcome.entry),
            outcome.aim.note,
        )
        for outcome in found
    ]
    headings = ("model", "at most", "reached", "met", "core-hours", "published", "note")
    parts = [INTRODUCTION, wide(table(headings, rows)) + "\n"]
    if short := [outcome for outcome in found if outcome.short]:
        parts += [SHORT, *(text for outcome in short for text in _explained(outcome, curves, captions))]
    if unknown := [outcome.entry.name for outcome in found if _unrecorded(outcome.entry)]:
        models = ", ".join(f"[`{name}`](models/{name}.md)" for name in unknown)
        parts.append(UNRECORDED.format(models=models))
    return "\n".join(parts)


def _unrecorded(entry: Entry) -> bool:
    """Whether a stage of a model's training has no recipe: no file of it, or a remark in place of its command."""
    if entry.training is None:
        return False
    stages = entry.training.command.split(" && ")
    return not entry.training.recipe.endswith(".toml") or any(stage.startswith("#") for stage in stages)


def _hours(outcome: Outcome) -> str:
    """The hours that a model was given, of those that it was to have."""
    if outcome.entry.training is None:
        return NOTHING
    wanted = "" if outcome.aim.hours is None else f" of {outcome.aim.hours:g}"
    return f"{outcome.entry.training.hours:.1f}{wanted}"


def _explained(outcome: Outcome, curves: set[str], captions: Mapping[str, str]) -> Iterator[str]:
    name = outcome.entry.name
    yield f"### {name}\n\n{outcome.aim.left}\n"
    if outcome.entry.weights is not None and f"{name}-curve.png" in curves:
        yield f"![Training curve of {name}](images/{name}-curve.png)\n"
        if name in captions:
            yield f"*{captions[name]}*\n"


def read_aims(text: str) -> list[Aim]:
    """The aims of ``docs/aims.json``."""
    rows: list[dict[str, Any]] = json.loads(text)["aims"]
    return [Aim(**row) for row in rows]


def expected(root: Path) -> str:
    """The page as it should be in the checkout at ``root``."""
    manifest_path = root / "weights_manifest.json"
    manifest = parse(manifest_path.read_text(encoding="utf-8"), manifest_path.name)
    images = {path.name for path in (root / "docs/images").glob("*.png")}
    divergences = {name: found.value for name, found in divergences_of(root).items()}
    aims = read_aims((root / AIMS).read_text(encoding="utf-8"))
    return page(outcomes(aims, manifest, divergences), images, captions_of(root))


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if the page differs.")
def main(check: bool) -> None:
    """Writes the page of aims."""
    text, path = expected(ROOT), ROOT / PAGE
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    if check:
        raise click.ClickException(f"out of date: {PAGE}. Run: make docs")
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote {PAGE}", err=True)


if __name__ == "__main__":
    main()
