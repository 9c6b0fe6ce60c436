"""What cards and the page of aims say of models beside the manifest: times, exactness, divergences, captions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from flowzoo.manifest.read import Entry

__all__ = ["Beside", "Divergence", "captions_of", "divergence", "divergences_of"]

TIMINGS, EXACTNESS, CURVES = "docs/timings.json", "docs/exactness.json", "docs/curves.json"


@dataclass(frozen=True)
class Divergence:
    """The Kullback-Leibler divergence of a model of points from the true density, in nats, on the test points.

    Attributes:
        value: The estimate.
        stderr: Its standard error.
    """

    value: float
    stderr: float


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What is known of the models beside the manifest.

    Attributes:
        timings: ``docs/timings.json``: milliseconds and round trips, by ``name@version``.
        exactness: ``docs/exactness.json``: what comes back in float32 and in float64, by ``name@version``.
        divergences: Of models of points, by name.
        captions: What a reader has to know of a training curve, by the model's name.
    """

    timings: Mapping[str, Any] = field(default_factory=dict)
    exactness: Mapping[str, Any] = field(default_factory=dict)
    divergences: Mapping[str, Divergence] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Beside:
        """What the files of the checkout at ``root`` have."""
        timings, exactness = (
            json.loads((root / name).read_text(encoding="utf-8")) for name in (TIMINGS, EXACTNESS)
        )
        return cls(
            timings=timings,
            exactness=exactness,
            divergences=divergences_of(root),
            captions=captions_of(root),
        )

    def timing(self, entry: Entry) -> Mapping[str, Any]:
        """The times of an entry's weights; nothing if they are of other weights."""
        return _of_weights(self.timings, entry)

    def counted(self, entry: Entry) -> Mapping[str, Any]:
        """What of an entry's items comes back; nothing if other weights were looked at."""
        return _of_weights(self.exactness, entry)


def _of_weights(known: Mapping[str, Any], entry: Entry) -> Mapping[str, Any]:
    found: Mapping[str, Any] = known.get(entry.key, {})
    same = entry.weights is not None and found.get("sha256") == entry.weights.sha256
    return found if same else {}


def divergence(picture: Path) -> Divergence | None:
    """The divergence that ``flowzoo picture`` wrote into a picture of points; None for other pictures."""
    with Image.open(picture) as image:
        text = str(image.info.get("Description", ""))
    stated = re.search(r"KL divergence (-?\d+\.\d+) ± (\d+\.\d+)", text)
    return Divergence(float(stated[1]), float(stated[2])) if stated else None


def divergences_of(root: Path) -> dict[str, Divergence]:
    """The divergences of all models whose picture of points is in the checkout, by name."""
    found = {}
    for path in sorted((root / "docs/images").glob("picture-*.png")):
        if (value := divergence(path)) is not None:
            found[path.stem.removeprefix("picture-")] = value
    return found


def captions_of(root: Path) -> dict[str, str]:
    """The captions of ``docs/curves.json``."""
    found: dict[str, str] = json.loads((root / CURVES).read_text(encoding="utf-8"))
    return found
