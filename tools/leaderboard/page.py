"""The leaderboard as a page of Markdown, whose tables the site's script sorts and filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from tools.cells import NOTHING, SAMPLES, count, table
from tools.leaderboard.rows import Row, Table

__all__ = ["GENERATED", "anchor", "page", "readme"]

GENERATED = "<!-- generated from weights_manifest.json by `make docs`; edit that, not this -->"

INTRODUCTION = """# Leaderboard

One table for each release of a data set, at one depth of grey levels: figures from different tables are of different
images and say nothing of each other. In a row are

- a **model**: weights that flowzoo ships, measured on every test image by the command in the row;
- a **baseline**: the length of a simple code of the same images, computed by the command in the row. A density model
  above one of them has learned less than that code knows;
- a **published** figure: what a paper gives for a model that nobody has measured here, with what is known against it.

Models are ranked by the figure of *one* noise sample an image, which all of them have; the figure of *eight samples*
stands beside it and ranks nothing, since only some models have one. A baseline, which needs no noise, and a published
figure that does not say of how many samples it is, stand in the first column; a published figure of several stands in
the second, with their number where it is not eight, and takes its place by that.

± is the standard error over the images. The kind says what the figure of one sample is: *exact* (the density of an
image with its noise), a *bound* (the true figure is at most this), the mean of *unbiased* estimates, *biased*, or the
length of a real *code*. The figure of several samples is always an importance-weighted bound, marked ≤: it averages
their densities, and gets better with their number. *On record* says which of the two the manifest promises and
`flowzoo eval` verifies. Where the noise is learned, the figure under *uniform noise*, of one sample, stands beside: the
same weights without the noise they were trained with, which shows what the learned noise is worth and what a paper's
uniform noise would have to be compared with.

Passes are those of a density and of a sample. *Round trip* is the largest difference, in grey levels, between images
and what their latents give back, in float32 and in float64, of vectors in their own units; *reconstructed* counts the
test images that came back exactly, vectors within 0.0001. *As a file* is the size of what `flowzoo compress` makes of
all the images, everything in it counted ([compression](compression.md)); *date* is the day of the measurement. The
reason codes are explained [below](#reason-codes).
"""

Cell = Callable[[Row], str]

SEVERAL = "eight samples"
"""The heading of the figures of several samples, whose number a cell states where it is another."""


def page(tables: Sequence[Table], reasons: Mapping[str, str], plots: Mapping[str, Sequence[str]]) -> str:
    """The file ``docs/leaderboard.md``.

    Args:
        tables: In the order in which they are shown.
        reasons: Explanation of each reason code.
        plots: Table's name to paths of its plots, relative to the docs.
    """
    parts = [GENERATED, INTRODUCTION.rstrip()]
    parts.append(
        "All rows to download: [leaderboard.csv](leaderboard.csv), [leaderboard.json](leaderboard.json). Everything "
        "here is written by `make docs` from [the manifest](weights.md#references), whose references are the "
        "baselines, the times of `python -m tools.timings` and a file of published figures."
    )
    for found in tables:
        parts += [f"## {found.name}", f"Release: {found.description}."]
        parts.append(f'<div class="leaderboard" markdown>\n\n{_table(found)}\n\n</div>')
        parts += [
            f"![{_caption(path, found)}]({path}){{ .plot loading=lazy }}"
            for path in plots.get(found.name, ())
        ]
    rows = [(f"`{code}`", meaning) for code, meaning in sorted(reasons.items())]
    parts += [
        "## Reason codes",
        "Why a published figure is not comparable with a measured one.",
        table(("code", "meaning"), rows),
    ]
    return "\n\n".join(parts) + "\n"


def readme(tables: Iterable[Table], name: str, most: int) -> str:
    """The best rows of one table for the README, of which a third are baselines: they show what a bit is worth."""
    [found] = [found for found in tables if found.name == name]
    best = {what: [row for row in found.rows if row.what == what] for what in ("model", "baseline")}
    kept = [*best["model"][: most - most // 3], *best["baseline"][: most // 3]]
    shown = [row for row in found.rows if row in kept]
    rows = [
        (
            f"[`{row.name}`](docs/{row.page})" if row.page else row.name,
            row.what,
            figure(row),
            several(row),
            _count(row.parameters),
        )
        for row in shown
    ]
    return table((f"{name}, test", "", found.heading, SEVERAL, "parameters"), rows)


def anchor(heading: str) -> str:
    """The id that the site gives to a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def figure(row: Row) -> str:
    """The figure of one sample: four decimals where it was measured, as many as were published elsewhere."""
    return _with_error(row, row.figure, row.stderr, "≤ " if row.kind == "bound" else "")


def several(row: Row) -> str:
    """The figure of several samples, a bound; with their number where it is not that of the heading."""
    number = f" of {row.samples:,}" if row.samples not in (None, SAMPLES) else ""
    found = _with_error(row, row.several, row.several_stderr, "≤ ")
    return found if found == NOTHING else found + number


def _with_error(row: Row, value: float | None, stderr: float | None, sign: str) -> str:
    if value is None:
        return NOTHING
    if row.what == "published":
        return f"{value:.2f}" if round(value, 2) == value else f"{value:g}"
    return f"{sign}{value:.4f}" + (f" ± {stderr:.4f}" if stderr is not None else "")


def _caption(path: str, found: Table) -> str:
    return (
        f"{found.heading} against {'milliseconds' if 'milliseconds' in path else 'parameters'}, {found.name}"
    )


def _table(found: Table) -> str:
    """Only columns in which some row has something."""
    columns = [
        (heading, cells)
        for heading, cell in _columns(found.heading)
        if (cells := [cell(row) for row in found.rows]) and any(text != NOTHING for text in cells)
    ]
    return table(
        [heading for heading, _ in columns], list(zip(*(cells for _, cells in columns), strict=True))
    )


def _columns(figures: str) -> list[tuple[str, Cell]]:
    return [
        ("model", _name),
        ("row", lambda row: row.what),
        (figures, figure),
        (SEVERAL, several),
        ("kind", _kind),
        ("on record", lambda row: row.record or NOTHING),
        ("uniform noise", lambda row: _number(row.uniform)),
        ("given the label", lambda row: _number(row.given_label)),
        ("as a file", lambda row: _number(row.file)),
        ("published", lambda row: NOTHING if row.published is None else f"{row.published:g}"),
        ("source", lambda row: row.source or NOTHING),
        ("comparable", _comparable),
        ("selection", lambda row: row.selection or NOTHING),
        ("parameters", lambda row: _count(row.parameters)),
        ("training", lambda row: row.cost or NOTHING),
        ("log_prob ms", lambda row: _milliseconds(row.density_ms)),
        ("sample ms", lambda row: _milliseconds(row.sample_ms)),
        ("timed on", lambda row: row.hardware or NOTHING),
        ("passes", _passes),
        ("round trip", lambda row: row.round_trip or NOTHING),
        ("reconstructed", lambda row: row.exact or NOTHING),
        ("finite samples", lambda row: row.finite or NOTHING),
        ("license", lambda row: row.license or NOTHING),
        ("sha256", lambda row: f"`{row.sha256}`" if row.sha256 else NOTHING),
        ("revision", lambda row: f"`{row.revision}`" if row.revision else NOTHING),
        ("date", lambda row: row.date or NOTHING),
        ("command", lambda row: f"`{row.command}`" if row.command else NOTHING),
        ("note", lambda row: row.note or NOTHING),
    ]


def _name(row: Row) -> str:
    return f"[`{row.name}`]({row.page})" if row.page else row.name


def _kind(row: Row) -> str:
    """What the figure is; the one of several samples is a bound whatever that of one is."""
    both = row.figure is not None and row.several is not None and row.kind != "bound"
    return f"{row.kind or NOTHING}" + ("; of several samples a bound" if both else "")


def _comparable(row: Row) -> str:
    codes = " ".join(f"`{code}`" for code in row.reasons)
    if row.comparable is None:
        return codes or NOTHING
    return f"{row.comparable}: {codes}" if codes else row.comparable


def _passes(row: Row) -> str:
    if row.density_passes is None:
        return NOTHING
    return f"{row.density_passes:,} / {row.sampling_passes or 1:,}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _milliseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def _count(value: int | None) -> str:
    return NOTHING if value is None else count(value)
