"""Whether a measurement is the manifest's, and how it stands to the published figure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from flowzoo.data import get_dataset
from flowzoo.data.portable import portable_id

if TYPE_CHECKING:
    from flowzoo.data.images import ImageSet
    from flowzoo.evaluation.metrics import Mean
    from flowzoo.evaluation.protocol import Protocol
    from flowzoo.manifest.schema import Entry

_UNITS = {"bits per dimension": "bits/dim", "nats": "nats"}
State = Literal[
    "verified", "not verified", "not finite", "partial", "other protocol", "not recorded", "no entry"
]

_NOT_FINITE = (
    "the figure is NaN or infinite: the model cannot be used as it is, or its images are not its own"
)

TOLERANCE = 1e-4
"""Bits per dimension. The noise is the same bits everywhere; what differs between machines is the rounding
of float32 convolutions, which moves the mean of a test split by about a hundredth of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The comparison with the manifest.

    Attributes:
        state: ``verified``: within tolerance under the entry's protocol on the whole split; ``not verified``: not
            within; ``not finite``: the figure is NaN or infinite; ``partial`` and ``other protocol``: not
            comparable; ``not recorded``: the entry has no figure yet; ``no entry``: there is nothing to compare
            with.
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
        """Whether the command succeeds: verified, or nothing to verify against, or only a part was asked for."""
        return self.state in ("verified", "no entry", "partial")


def judge(
    entry: Entry | None,
    mean: Mean,
    protocol: Protocol,
    images: ImageSet,
    *,
    partial: bool,
    dequantization: str,
    listed: bool = True,
) -> Verdict:
    """Compares a measurement with a manifest entry, or with what a model's own card states.

    Args:
        entry: The entry; None if there is none.
        mean: The figure.
        protocol: Samples, seed and dtype that it was measured with.
        images: The images that it was measured on.
        partial: Whether these are less than the split.
        dequantization: ``uniform`` or ``variational``: the noise that was added.
        listed: Whether a manifest lists the entry; if not, the model's ``flowzoo.json`` states it.
    """
    finite = math.isfinite(mean.value)
    if entry is None and finite:
        return Verdict(state="no entry", reason="no manifest entry to compare with")
    if entry is None:
        return Verdict(state="not finite", reason=_NOT_FINITE)
    entry = _under(entry, protocol)
    # A paper's figure is of the entry's images and of no others.
    same_images = (portable_id(images.id), images.split) == (portable_id(entry.data.id), entry.data.split)
    published = entry.published if same_images else None
    note = _published_note(entry, mean) if published else entry.published_reason
    if not same_images:
        note = f"not compared: the published figure is of the {entry.data.split} split of {entry.data.id}"
        note = note if entry.published else None
    measured = entry.measured
    state, reason = (
        _state(entry, mean, protocol, images, partial, dequantization, listed)
        if finite
        else ("not finite", _NOT_FINITE)
    )
    return Verdict(
        state=state,
        reason=reason,
        manifest_bpd=measured.value if measured else None,
        tolerance=measured.tolerance if measured else None,
        published_bpd=published.bpd if published else None,
        published_note=note,
    )


def _under(entry: Entry, protocol: Protocol) -> Entry:
    """The entry with the figure of the noise, and of as many samples of it, as were asked for, if it states one."""
    measured, uniform, several = entry.measured, entry.uniform_noise, entry.several_samples
    if measured is None:
        return entry
    if protocol.noise != "own" and uniform is not None:
        found = replace(measured, bpd=uniform.bpd, stderr=uniform.stderr, samples=1, dequantization="uniform")
    elif several is not None and protocol.samples == several.samples:
        found = replace(measured, bpd=several.bpd, stderr=several.stderr, samples=several.samples)
    else:
        return entry
    return replace(entry, measured=found)


def _state(
    entry: Entry,
    mean: Mean,
    protocol: Protocol,
    images: ImageSet,
    partial: bool,
    dequantization: str,
    listed: bool,
) -> tuple[State, str]:
    measured = entry.measured
    if measured is None:
        return (
            "not recorded",
            f"the manifest has no measured figure for it yet; flowzoo publish {entry.key} --record writes it",
        )
    other = [
        f"{name} {found}, the entry's is {wanted}"
        for name, found, wanted in (
            ("data set", portable_id(images.id), portable_id(entry.data.id)),
            ("split", images.split, entry.data.split),
            ("samples", protocol.samples, measured.samples),
            ("probes", protocol.probes, measured.probes),
            ("density", *_density(entry, protocol)),
            ("seed", protocol.seed, measured.seed),
            ("dtype", protocol.dtype, measured.dtype),
            ("dequantization", dequantization, measured.dequantization),
            ("preprocessing", get_dataset(images.id).preprocessing, entry.data.preprocessing),
            *_whole_split(entry, images, partial),
        )
        if found != wanted
    ]
    if other:
        return "other protocol", "; ".join(other)
    if partial:
        return (
            "partial",
            f"{mean.count} of {measured.num_images} {images.kind} prove nothing about the figure",
        )
    difference = mean.value - measured.value
    source = "the manifest" if listed else "the model's own card"
    words = f"differs from {source} by {difference:+.2e} {_UNITS[measured.unit]}, tolerance {measured.tolerance:g}"
    return ("verified" if abs(difference) <= measured.tolerance else "not verified"), words


def _density(entry: Entry, protocol: Protocol) -> tuple[str, str]:
    """The density that was measured, and the one that the entry's figure is of."""
    found = "p(x|y)" if protocol.conditional else "p(x)"
    return found, "p(x)" if entry.labels is None else f"p({entry.labels.figure})"


def _whole_split(entry: Entry, images: ImageSet, partial: bool) -> list[tuple[str, object, object]]:
    """Facts that only all images of a split can be compared in."""
    if partial or entry.measured is None:
        return []
    found: list[tuple[str, object, object]] = [
        ("number of images", len(images), entry.data.num_images),
        ("number of measured images", len(images), entry.measured.num_images),
    ]
    if entry.data.digest is not None:
        found.append(("digest of the images", images.digest, entry.data.digest))
    return found


def _published_note(entry: Entry, mean: Mean) -> str:
    published = entry.published
    assert published is not None
    difference = mean.value - published.bpd
    error = f" ± {mean.stderr:.4f}" if math.isfinite(mean.stderr) else ""
    return (
        f"{difference:+.4f}{error} from {published.bpd:g} ({published.source}), on {published.dataset}; "
        f"its protocol: {published.protocol}"
        + (f"; not comparable: {', '.join(published.incomparable)}" if published.incomparable else "")
    )
