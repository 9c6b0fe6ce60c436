"""The types that a plugin's metadata module is made of. Torch-free: it must load in milliseconds.

A plugin distribution exposes one module-level :class:`Architecture` under the entry-point group
``flowzoo.architectures``; the entry's name is the architecture's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "API_VERSION",
    "INCOMPARABLE",
    "SUPPORTED_API_VERSIONS",
    "Architecture",
    "Citation",
    "Incomparable",
    "Preset",
    "Published",
]

API_VERSION = 2
"""The newest version of this contract that this core speaks.

Version 2 adds vectors (a config with ``dims``), labels, kinds of maps, augmentation and further bases to version 1,
and takes nothing away.
"""

SUPPORTED_API_VERSIONS = (1, 2)
"""The versions of plugins that this core loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A paper.

    Attributes:
        key: BibTeX key, such as ``"kingma2018glow"``.
        title: The paper's title.
        authors: Authors in order, ``"Given Family"`` each.
        year: Year of publication.
        venue: Conference, journal or ``"arXiv"``.
        arxiv: arXiv number such as ``"1807.03039"``, if there is one.
    """

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    arxiv: str | None = None

    @property
    def url(self) -> str | None:
        """The paper's address, if it is on arXiv."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None

    @property
    def place(self) -> str:
        """Venue and year, such as ``"ICML 2019"`` or ``"arXiv, 2018"``; a year that the venue names comes once."""
        return self.venue if str(self.year) in self.venue.split() else f"{self.venue}, {self.year}"

    def bibtex(self) -> str:
        """The citation as a BibTeX entry."""
        fields = {
            "title": self.title,
            "author": " and ".join(self.authors),
            "year": str(self.year),
            "booktitle": self.venue,
        }
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@inproceedings{{{self.key},\n{body}\n}}"


Incomparable = Literal[
    "3x32x32",
    "batch-dependent-solver",
    "biased-logdet",
    "code-differs",
    "float-resize",
    "missing-constant",
    "noise-drawn-once",
    "noisy-data-density",
    "not-stated",
    "one-sample",
    "other-model",
    "other-release",
    "overlapping-bins",
    "several-samples",
    "tabulated",
    "test-selected",
]
"""The codes of why a published figure is not comparable with one that is measured here."""

INCOMPARABLE: Mapping[str, str] = {
    "3x32x32": "images of MNIST were padded and repeated to three channels with noise of their own",
    "batch-dependent-solver": "an image's figure depends on the others of its batch, through the solver's steps",
    "biased-logdet": "the log-determinant is truncated, so that the figure is biased",
    "code-differs": "the released code does something else than the paper says",
    "float-resize": "images were resized to floats and not rounded, so that no integers are coded",
    "missing-constant": "a constant of the density was left out",
    "noise-drawn-once": "the dequantization noise was drawn once, so that all images are fixed real vectors",
    "noisy-data-density": "it is a density of noisy images",
    "not-stated": "the source does not say how it was measured",
    "one-sample": "one noise sample or one probe of the log-determinant an image, and no standard error",
    "other-model": "the published figure is of a model of another shape",
    "other-release": "measured on another release or resize of the data set",
    "overlapping-bins": "the bins of neighbouring grey levels overlap, which counts some of the density twice",
    "several-samples": "one of the two figures is tightened by several noise samples an image, the other is not",
    "tabulated": "the figure was read in a later paper's table, not in the model's own",
    "test-selected": "the checkpoint was chosen by its figure on the test images",
}
"""The codes in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A figure that somebody published for a configuration: a reference, never a gate.

    Attributes:
        bpd: Bits per dimension.
        dataset: The data set and split it was measured on, in words.
        source: Paper and table, or whoever tabulated it.
        protocol: Dequantization, samples, selection and whatever else moves the figure.
        incomparable: Codes of why a figure measured here does not stand beside it rightly, see :data:`INCOMPARABLE`;
            empty if it does.
    """

    bpd: float
    dataset: str
    source: str
    protocol: str
    incomparable: tuple[Incomparable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named configuration of an architecture.

    Attributes:
        summary: One line.
        config: Keyword arguments of the architecture's config dataclass: ``image_shape`` for images, ``dims`` for
            vectors, and whatever else it has.
        dataset: Id of the data set it is meant for, such as ``"mnist"`` or ``"points:two-moons"``, or None.
        recipe: Training recipe as ``"package:path/inside/it.toml"``, or None.
        published: The published figure, or None.
        parameters: Number of trainable parameters that somebody published, or None.
        parameters_note: Where ``parameters`` comes from and why it may differ from ours.
        labels: Number of classes whose labels y the model takes, or None for a model without labels.
    """

    summary: str
    config: Mapping[str, Any]
    dataset: str | None = None
    recipe: str | None = None
    published: Published | None = None
    parameters: int | None = None
    parameters_note: str = ""
    labels: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """An architecture: what a plugin's entry point resolves to.

    Attributes:
        api_version: The contract that the plugin was written for, as a literal.
        name: The architecture's name; equals the entry point's.
        summary: One line.
        config: ``"module:Class"`` of a frozen dataclass; its module imports no torch.
        build: ``"module:function"``, config to :class:`flowzoo.flow.Flow`; imported only to build.
        presets: Named configurations; ``"tiny"`` is mandatory (8x8 images, or vectors, and at most
            50,000 parameters).
        citations: The papers.
        manifest: ``"package:file.json"`` of a weights manifest that the plugin brings, or None.
    """

    api_version: int
    name: str
    summary: str
    config: str
    build: str
    presets: Mapping[str, Preset] = field(default_factory=dict)
    citations: tuple[Citation, ...] = ()
    manifest: str | None = None
