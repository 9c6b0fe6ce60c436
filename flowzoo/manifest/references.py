"""The references of a weights manifest: figures of no model, by which those of the models are to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from flowzoo.manifest.schema import Data
from flowzoo.manifest.values import NotNegative, Text

__all__ = ["Reference", "in_order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A figure of the same images that needs no weights. It promises nothing: it may be measured anew.

    Attributes:
        kind: ``"baseline"``: the length of a simple code, which a density model should beat.
        name: What it is, in words; a data set has one of each name.
        data: The images that the figure is measured on.
        unit: What the figure is in.
        figure: The mean over the images.
        command: The command that measures it again.
        versions: Versions of what it was measured with, by name.
        stderr: Standard error of the mean; None of a figure that is not one.
        note: How the code is made, and what a reader should know of the figure.
    """

    kind: Literal["baseline"]
    name: Text
    data: Data
    unit: Literal["bits per dimension"]
    figure: NotNegative
    command: Text
    versions: Mapping[str, str]
    stderr: NotNegative | None = None
    note: Text | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Data set, kind and name, which are together in a file once."""
        return self.data.id, self.kind, self.name


def in_order(references: Iterable[Reference]) -> tuple[Reference, ...]:
    """References in the order in which a manifest holds them."""
    return tuple(sorted(references, key=lambda reference: reference.key))
