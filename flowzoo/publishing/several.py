"""Why a model has no figure of several noise samples an image. Torch-free."""

from __future__ import annotations

from collections.abc import Callable

from flowzoo.manifest.schema import Entry

__all__ = ["no_several", "no_several_of"]


def no_several(*, noise: bool, valid_bpd: bool, estimated: bool, flat: Callable[[], bool]) -> str | None:
    """Why several noise samples an image would give no other, or no honest, figure; None if they would.

    Args:
        noise: Whether noise is added to the data at all.
        valid_bpd: Whether the figure is bits per dimension.
        estimated: Whether the log-determinant is an estimate.
        flat: Whether the density is the same all over a grey level; asked last, since it takes the model's densities.
    """
    if not noise:
        return "no noise is added to the data"
    if not valid_bpd:
        return "the density is of images with noise, not of grey levels"
    if estimated:
        return (
            "the log-determinant is estimated, and the logarithm of a mean of exponentials of estimates would look "
            "better than the model is"
        )
    if flat():
        return "the density is the same all over a grey level, so that the noise changes nothing"
    return None


def no_several_of(entry: Entry) -> str | None:
    """The reason of a model in the manifest; None if it has both figures, or was not measured.

    An entry that lacks the figure for none of the other reasons has a density that is flat within a grey level: for
    any other, publishing measures it.
    """
    measured = entry.measured
    if measured is None or entry.one_sample_bpd is not None or entry.several_samples is not None:
        return None
    return no_several(
        noise=measured.dequantization != "none",
        valid_bpd=entry.valid_bpd,
        estimated=entry.figure_kind in ("unbiased", "biased"),
        flat=lambda: True,
    )
