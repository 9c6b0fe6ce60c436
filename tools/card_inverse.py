"""The section of a card on time and inverse: milliseconds in both directions, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowzoo.manifest.read import Entry
from tools.beside import Beside
from tools.cells import count, noun, table, two_digits

HALF_A_LEVEL = 0.5
"""The difference in grey levels from which on a dequantized image rounds to another."""


def inverse(entry: Entry, beside: Beside) -> Iterator[str]:
    """The section; nothing of a model without weights.

    Args:
        entry: The model.
        beside: What is known of it beside the manifest.
    """
    rows = [*_times(entry, beside.timing(entry)), *_round_trip(entry, beside.timing(entry)), *_audit(entry)]
    if not rows:
        return
    yield "## Time and inverse"
    yield table(("", "", "how"), rows)
    yield from _why(entry, beside.counted(entry))
    yield from _stray_samples(entry, beside)


def _times(entry: Entry, timing: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    one = "an image" if noun(entry) == "images" else "a vector"
    for name, key in (("`log_prob`", "density_ms"), ("`sample`", "sample_ms")):
        if key in timing:
            yield name, f"{timing[key]:g} ms {one}", str(timing["hardware"])


def _round_trip(entry: Entry, timing: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if not (found := timing.get("round_trip")):
        return
    unit = " grey levels" if noun(entry) == "images" else ""
    largest = (
        "largest difference between 64 of its samples and what their latents give back, float32 / float64"
    )
    figures = " / ".join(two_digits(found[dtype]) for dtype in ("float32", "float64"))
    yield "round trip", f"{figures}{unit}", largest


def _audit(entry: Entry) -> Iterator[tuple[str, str, str]]:
    found = entry.measured
    if found is None or found.reconstruction_exact is None:
        return
    near = "exactly" if noun(entry) == "images" else "within 0.0001 of their size, or of 1"
    yield (
        "`decode(encode(x)) == x`",
        f"{count(found.reconstruction_exact)} of {count(found.num_images)} {noun(entry)}",
        f"{near}, of the split `{entry.data.split}`, in {found.dtype}",
    )


def _why(entry: Entry, counted: Mapping[str, Any]) -> Iterator[str]:
    """Why some test items do not come back."""
    measured = entry.measured
    if measured is None or measured.reconstruction_exact in (None, measured.num_images):
        return
    others = "other was" if measured.reconstruction_exact == measured.num_images - 1 else "others were"
    yield (
        f"The {others} lost to float32's rounding: where the map squeezes, its inverse stretches the rounding "
        f"errors.{_in_float64(entry, counted)}"
    )


def _in_float64(entry: Entry, counted: Mapping[str, Any]) -> str:
    if not counted:
        return ""
    found = counted["test"]
    lost = found["items"] - found["float32"]
    which = "" if found["items"] == entry.data.num_images else "first "
    return (
        f" Asked again one by one, {count(lost)} of the {which}{count(found['items'])} did not come back in float32 "
        f"(machines round differently), and {_all_of(found['float64'], lost)} did in float64 "
        f"(`python -m tools.exactness {entry.name}`)."
    )


def _all_of(part: int, whole: int) -> str:
    if part != whole:
        return f"{count(part)} of them"
    return {1: "it", 2: "both"}.get(whole, f"all {count(whole)}")


def _stray_samples(entry: Entry, beside: Beside) -> Iterator[str]:
    """What a round trip of more than half a grey level means."""
    worst = beside.timing(entry).get("round_trip", {}).get("float32", 0.0)
    if noun(entry) != "images" or worst < HALF_A_LEVEL:
        return
    said = (
        f"The round trip of {two_digits(worst)} grey levels is of its own samples at temperature 1, not of the data: a "
        "few of these are so far from what it learned that float32's rounding grows beyond all measure on the way "
        "to their latents and back."
    )
    if counted := beside.counted(entry).get("samples"):
        lost = counted["items"] - counted["float32"]
        said += (
            f" {count(lost)} of {counted['items']} samples did not come back in float32, "
            f"{_all_of(counted['float64'], lost)} did in float64 (`python -m tools.exactness {entry.name}`)."
        )
    yield said + " Images of the data come back, as the last row says."
