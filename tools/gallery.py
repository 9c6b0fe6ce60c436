"""The section of ``docs/models.md`` that shows a picture of every architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowzoo.manifest.read import Entry
from tools.cells import noun, one_sample_bpd
from tools.families import by_family

HEADING = "## A picture of each architecture"
INTRODUCTION = """\
Of models of points: data, densities and samples, and below how the points move through the layers or through time; the
caption has the divergence from the true density. Of models of images: samples on their way from noise, the layers of
the model running backwards; of a model of a single layer, the samples alone. An architecture that takes both has the
pictures of both."""


def gallery(entries: Sequence[Entry], pictures: Mapping[str, str]) -> str:
    """The section, architectures by family; empty where there is no picture at all.

    Args:
        entries: The models; of those of images the one with the fewest bits per dimension is shown.
        pictures: Names of the files in ``docs/images``, each with the temperature that it states.
    """
    blocks, any_shown = [], False
    for members in by_family(entries).values():
        for architecture in dict.fromkeys(entry.architecture for entry in members):
            own = [entry for entry in members if entry.architecture == architecture]
            shown = _drawn(own, pictures) or _samples(own, pictures)
            any_shown |= bool(shown)
            blocks.append(f"### {architecture}\n\n{shown or _nothing(own)}")
    return "\n".join((f"{HEADING}\n\n{INTRODUCTION}\n", *blocks)) if any_shown else ""


def takes_points(entries: Sequence[Entry]) -> bool:
    """Whether a config of the architecture can be one of vectors."""
    return any("dims" in entry.config for entry in entries)


def _drawn(own: Sequence[Entry], pictures: Mapping[str, str]) -> str:
    """The pictures that ``flowzoo picture`` has drawn, of all models that have one."""
    return "\n".join(
        f"![{'Density and layers of' if noun(entry) == 'vectors' else 'From noise to images by'} {entry.name}]"
        f"(images/{file})\n\n"
        f"[`{entry.name}`](models/{entry.name}.md), drawn by `flowzoo picture {entry.name} -o docs/images/{file}`.\n"
        for entry in own
        if entry.weights is not None and (file := f"picture-{entry.name}.png") in pictures
    )


def _samples(own: Sequence[Entry], pictures: Mapping[str, str]) -> str:
    """The grid of samples of the best model of images that has one, by one noise sample an image."""
    grids = [entry for entry in own if entry.weights is not None and f"{entry.name}.png" in pictures]
    if not grids:
        return ""
    best = min(grids, key=lambda entry: float("inf") if (bpd := one_sample_bpd(entry)) is None else bpd)
    temperature = pictures[f"{best.name}.png"] or "not recorded"
    return (
        f"![Samples of {best.name}](images/{best.name}.png)\n\n"
        f"[`{best.name}`](models/{best.name}.md), temperature {temperature}, the first that were drawn.\n"
    )


def _nothing(own: Sequence[Entry]) -> str:
    takes = "Takes points" if takes_points(own) else "Takes images alone"
    return f"{takes}; no weights yet, so no picture.\n"
