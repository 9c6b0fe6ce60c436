"""Whether a measurement is the manifest's, and how it stands to the published figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from flowzoo.data.images import ImageSet
    from flowzoo.evaluation.measure import Protocol
    from flowzoo.evaluation.metrics import Mean
    from flowzoo.manifest.schema import Entry

State = Literal["verified", "not verified", "partial", "other protocol", "not recorded", "no entry"]

TOLERANCE = 1e-4
"""Bits per dimension. The noise is the same bits everywhere; what differs between machines is the rounding
of float32 convolutions, which moves the mean of a test split by about a hundredth of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The comparison with the manifest.

    Attributes:
        state: ``verified``: within tolerance under the entry's protocol on the whole split; ``not
            verified``: not within; ``partial`` and ``other protocol``: not comparable; ``not recorded``:
            the entry has no figure yet; ``no entry``: there is nothing to compare with.
        reason: The state in words.
        manifest_bpd: The entry's figure.
        tolerance: The entry's tolerance.
        published_bpd: The paper's figure.
        published_note: Difference to it with standard error, source, and where protocols differ.
    """

    state: State
    reason: str
    manifest_bpd: float | None = None
    tolerance: float | None = None
    published_bpd: float | None = None
    published_note: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the command succeeds: verified, or nothing to verify against."""
        return self.state in ("verified", "no entry")


def judge(entry: Entry | None, mean: Mean, protocol: Protocol, images: ImageSet, *, partial: bool) -> Verdict:
    """Compares a measurement with a manifest entry."""
    if entry is None:
        return Verdict(state="no entry", reason="no manifest entry to compare with")
    published = entry.published
    note = _published_note(entry, mean) if published else entry.published_reason
    measured = entry.measured
    state, reason = _state(entry, mean, protocol, images, partial)
    return Verdict(
        state=state,
        reason=reason,
        manifest_bpd=measured.bpd if measured else None,
        tolerance=measured.tolerance if measured else None,
        published_bpd=published.bpd if published else None,
        published_note=note,
    )


def _state(
    entry: Entry, mean: Mean, protocol: Protocol, images: ImageSet, partial: bool
) -> tuple[State, str]:
    measured = entry.measured
    if measured is None:
        return (
            "not recorded",
            "the manifest has no measured figure for it yet; flowzoo eval --record writes it",
        )
    if partial or mean.count != measured.num_images:
        return "partial", f"{mean.count} images of {measured.num_images} prove nothing about the figure"
    other = [
        f"{name} {found}, the entry's is {wanted}"
        for name, found, wanted in (
            ("data set", images.id, entry.data.id),
            ("split", images.split, entry.data.split),
            ("samples", protocol.samples, measured.samples),
            ("seed", protocol.seed, measured.seed),
            ("dtype", protocol.dtype, measured.dtype),
        )
        if found != wanted
    ]
    if other:
        return "other protocol", "; ".join(other)
    difference = mean.value - measured.bpd
    words = f"differs from the manifest by {difference:+.2e} bits/dim, tolerance {measured.tolerance:g}"
    return ("verified" if abs(difference) <= measured.tolerance else "not verified"), words


def _published_note(entry: Entry, mean: Mean) -> str:
    published = entry.published
    assert published is not None
    difference = mean.value - published.bpd
    error = f" ± {mean.stderr:.4f}" if math.isfinite(mean.stderr) else ""
    return (
        f"{difference:+.4f}{error} from {published.bpd:g} ({published.source}), on {published.dataset}; "
        f"its protocol: {published.protocol}"
    )
