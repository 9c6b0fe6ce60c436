"""Built-in data sets of points, drawn from a seed: the toy problems of density estimation, with their entropies.

``python -m tools.points`` prints the entropies and digests anew.
"""

from __future__ import annotations

from flowzoo.data.api import SPLITS, Dataset, Split

__all__ = ["POINTS", "SIZES"]

SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
"""Points in each split."""

_RECORD: dict[str, tuple[float, str, str, str]] = {}


def _points(name: str, title: str, note: str, source: str, *, dims: int = 2, labels: tuple[str, ...] = ()) -> Dataset:
    entropy, *digests = _RECORD.get(name, (0.0, "", "", ""))
    return Dataset(
        id=f"points:{name}",
        title=title,
        release="drawn from seed 0 by integer-keyed random numbers: the same bits everywhere",
        preprocessing=f"points-{name}-v1",
        preprocessing_note=note,
        kind="vectors",
        dims=dims,
        label_names=labels,
        splits={
            split: Split(description="drawn on the spot", size=SIZES[split], sha256=digest)
            for split, digest in zip(SPLITS, digests, strict=True)
        },
        reader="flowzoo.data.readers.points:read",
        terms="none: generated",
        attribution=source,
        how_to_get="nothing to get: flowzoo draws it.",
        options={"density": name, "entropy": entropy},
    )


_FFJORD = "after the toy data of Grathwohl et al., FFJORD, arXiv 1810.01367"
_CURVES_1992 = "Marron and Wand, Exact mean integrated squared error, Annals of Statistics, 1992"

POINTS: tuple[Dataset, ...] = (
    _points(
        "two-moons",
        "Two moons, 2-D",
        "Two half circles of radius 2, the lower one shifted by (2, 1), plus normal noise of standard deviation 0.2.",
        f"{_FFJORD}; scikit-learn's make_moons",
        labels=("upper", "lower"),
    ),
    _points(
        "eight-gaussians",
        "Eight Gaussians on a circle, 2-D",
        "Means on a circle of radius sqrt(8), standard deviation sqrt(1/8), equal weights.",
        _FFJORD,
        labels=tuple("01234567"),
    ),
    _points(
        "checkerboard",
        "A checkerboard, 2-D",
        "Uniform on the eight dark squares of side 2 of a board from -4 to 4. Its density has edges.",
        _FFJORD,
    ),
    _points(
        "spirals",
        "Two spirals, 2-D",
        "Radius pi s at 1.5 s turns, s the square root of a uniform number, and its mirror image through the origin; "
        "plus normal noise of standard deviation 0.1. Without the uniform noise of the original, so that the density "
        "is known.",
        _FFJORD,
        labels=("first", "second"),
    ),
    _points(
        "pinwheel",
        "A pinwheel of five blades, 2-D",
        "Five normal distributions, at radius 2 with standard deviations 0.6 outwards and 0.2 across, each point "
        "turned by 0.1 turns for each unit of its distance from the origin: by the distance, not by the outward "
        "coordinate as in the original, so that the density is known.",
        "after Johnson et al., Composing graphical models with neural networks, arXiv 1603.06277",
        labels=tuple("01234"),
    ),
    _points(
        "smiley",
        "A smiley face, 2-D",
        "Eyes at (-1.5, 2.5) and (1.5, 2.5), and the mouth (2 cos t, -sin t), t uniform from 0 to pi, a third of the "
        "points each; plus normal noise of standard deviation 0.2.",
        "after the lecture on flow models of CS294-158, Deep Unsupervised Learning, University of California, Berkeley",
        labels=("left eye", "right eye", "mouth"),
    ),
    _points(
        "rings",
        "Four rings, 2-D",
        "Circles of radius 0.75, 1.5, 2.25 and 3 with equal weights, plus normal noise of standard deviation 0.24.",
        _FFJORD,
        labels=tuple("0123"),
    ),
    _points(
        "mixture-1d",
        "Three Gaussians on a line, 1-D",
        "Weights 0.3, 0.5, 0.2; means -2, 0.5, 3; standard deviations 0.5, 0.3, 0.8.",
        "flowzoo",
        dims=1,
        labels=("left", "middle", "right"),
    ),
    _points(
        "claw-1d",
        "The claw, 1-D",
        "Half a standard normal distribution, and five of standard deviation 0.1 at -1, -0.5, 0, 0.5, 1.",
        f"density 10 of {_CURVES_1992}",
        dims=1,
    ),
    _points(
        "comb-1d",
        "The smooth comb, 1-D",
        "Six normal distributions, each half as wide and half as likely as the one before.",
        f"density 14 of {_CURVES_1992}",
        dims=1,
    ),
)
"""All of them, those in the plane first."""
