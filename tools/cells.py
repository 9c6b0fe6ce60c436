"""Pieces of Markdown: tables, and the figures of a manifest entry as a reader wants to see them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flowzoo.config import data_shape
from flowzoo.data.registry import get_dataset
from flowzoo.manifest.read import Entry

NOTHING = "-"
SAMPLES = 8
"""How many noise samples the figures of several are of, if nothing else is said."""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a vertical bar inside a cell is escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def wide(text: str) -> str:
    """A table that needs all the room of the page, which the site gives it."""
    return f'<div class="wide" markdown>\n\n{text}\n\n</div>'


def measured(entry: Entry) -> str:
    """Bits per dimension with standard error; a bound under learned noise carries the sign for it."""
    if entry.measured is None:
        return NOTHING
    bound = "≤ " if entry.figure_kind == "bound" else ""
    return f"{bound}{entry.measured.value:.4f} ± {entry.measured.stderr:.4f}"


def measured_with_unit(entry: Entry) -> str:
    """As :func:`measured`, with the unit where it is not bits per dimension, and the entropy of such data."""
    found = measured(entry)
    if entry.measured is None or entry.measured.nats is None:
        return found
    known = true_entropy(entry)
    return f"{found} nats" + (f" (entropy {known:.4f})" if known is not None else "")


def true_entropy(entry: Entry) -> float | None:
    """Entropy in nats of the density that the data were drawn from; None where it is not known."""
    found = get_dataset(entry.data.id).options.get("entropy") if entry.data.id.startswith("points:") else None
    return float(found) if isinstance(found, int | float) else None


def one_sample_bpd(entry: Entry) -> float | None:
    """Bits per dimension with one noise sample an image, by which models are ranked; None where it is not known."""
    if entry.measured is not None and entry.measured.samples == 1:
        return entry.measured.bpd
    return entry.one_sample_bpd


def one_sample(entry: Entry) -> str:
    """The figure with one noise sample an image; nothing where it is not known, or in nats."""
    found = one_sample_bpd(entry)
    return NOTHING if found is None else f"{found:.4f}"


def ranked(entry: Entry) -> str:
    """The figure of one sample as a table of models shows it: with its standard error where it is the one on record."""
    if entry.measured is None or entry.measured.samples == 1:
        return measured_with_unit(entry)
    found = one_sample(entry)
    return f"≤ {found}" if found != NOTHING and entry.figure_kind == "bound" else found


def several_samples(entry: Entry) -> str:
    """The figure of several samples, a bound: with its standard error where it is the one on record."""
    if entry.measured is not None and entry.measured.samples > 1:
        found, number = f"{entry.measured.value:.4f} ± {entry.measured.stderr:.4f}", entry.measured.samples
    elif entry.several_samples is not None:
        found, number = f"{entry.several_samples.bpd:.4f}", entry.several_samples.samples
    else:
        return NOTHING
    return f"≤ {found}" + (f" of {number:,}" if number != SAMPLES else "")


def finite(entry: Entry) -> str:
    """How many of the samples that were counted are finite."""
    found = entry.sampling
    return NOTHING if found is None else f"{found.finite:,} of {found.drawn:,}"


def published(entry: Entry) -> str:
    """The published bits per dimension, as many digits as were published."""
    return NOTHING if entry.published is None else f"{entry.published.bpd:g}"


def count(number: int) -> str:
    """An integer with a comma between thousands."""
    return f"{number:,}"


def noun(entry: Entry) -> str:
    """What the model is of: ``images`` or ``vectors``."""
    return "vectors" if entry.config.get("image_shape") is None else "images"


def shape(entry: Entry) -> str:
    """The images' shape, channels first, or the vectors' length, and their bits where they are not 8."""
    sizes = "x".join(map(str, data_shape(entry.config)))
    n_bits = entry.config.get("n_bits", 8)
    return sizes if n_bits == 8 else f"{sizes}, {n_bits} bits"


def versions(found: Iterable[tuple[str, str]]) -> str:
    """Names and versions on one line."""
    return ", ".join(f"{name} {version}" for name, version in found)


def two_digits(value: float) -> str:
    """A measurement with two digits that count."""
    return f"{float(f'{value:.2g}'):,g}"
