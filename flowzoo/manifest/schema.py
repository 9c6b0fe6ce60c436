"""The entry of a model in a weights manifest: a tree of frozen dataclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from flowzoo.api import Published
from flowzoo.config import EXTENSION
from flowzoo.manifest.typed_json import Rule
from flowzoo.manifest.values import (
    MAX_SEED,
    MAX_TOLERANCE,
    Count,
    Day,
    Digest,
    FigureKind,
    Filename,
    InverseKind,
    Name,
    NotNegative,
    Positive,
    RepoId,
    Revision,
    Seed,
    StoredDtype,
    Text,
)

__all__ = [
    "Compressed", "Data", "Entry", "FigureKind", "Fingerprint", "InverseKind", "Labels", "Measured", "Sampling",
    "SeveralSamples", "Training", "UniformNoise", "Weights",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights file.

    Attributes:
        filename: Its name, in the repository and in a plugin's ``weights`` directory.
        sha256: SHA-256 of its content.
        size: Length in bytes.
        dtype: How floating-point tensors are stored.
        repo_id: Repository on the Hugging Face Hub, or None before it is published.
        revision: Commit in that repository, or None until the file is on the Hub.
    """

    filename: Filename
    sha256: Digest
    size: Count
    dtype: StoredDtype
    repo_id: RepoId | None = None
    revision: Revision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The images that the figure is measured on.

    Attributes:
        id: The data set's id.
        preprocessing: Id of the exact preprocessing.
        split: The split, ``"test"`` unless the data set has none.
        num_images: Images in that split.
        terms: License or terms of use of the data, in words.
        release: Which release of the data set.
        digest: SHA-256 of the split's images after preprocessing.
    """

    id: Text
    preprocessing: Text
    split: Text
    num_images: Count
    terms: Text
    release: Text | None = None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measurement of these weights, and everything needed to repeat it.

    Attributes:
        bpd: Bits per dimension: the mean over the images. None of vectors.
        stderr: Standard error of that mean, in its unit.
        dequantization: ``"uniform"`` or ``"variational"``.
        samples: Dequantization samples an image; more than one means importance weighting.
        seed: Seed of the evaluation noise.
        dtype: Precision of the evaluation.
        num_images: Images measured.
        tolerance: Largest difference in bits per dimension at which a new measurement still agrees.
        versions: Versions of flowzoo, the plugin, torch and whatever else matters, by name.
        command: The command that measures it again.
        reconstruction_exact: Images for which ``decode(encode(x)) == x`` held exactly, if it was tried.
        seconds: Wall-clock time of the measurement.
        hardware: What it was measured on.
        nats: Of a density: minus its logarithm in nats, the mean over the items, with both signs possible.
        probes: Probes of an estimated log-determinant, over which the figure is averaged.
        date: Day of the measurement, by Universal Time.
    """

    bpd: NotNegative | None = None
    stderr: NotNegative
    dequantization: Text
    samples: Count
    seed: Seed
    dtype: Literal["float32", "float64"]
    num_images: Count
    tolerance: Positive
    versions: Mapping[str, str]
    command: Text
    reconstruction_exact: Seed | None = None
    seconds: NotNegative | None = None
    hardware: Text | None = None
    nats: float | None = field(default=None, metadata=EXTENSION)
    probes: Count = field(default=1, metadata=EXTENSION)
    date: Day | None = field(default=None, metadata=EXTENSION)

    @property
    def value(self) -> float:
        """The figure: bits per dimension of images, nats of vectors."""
        found = self.nats if self.bpd is None else self.bpd
        assert found is not None, "an entry with neither is refused when it is read"
        return found

    @property
    def unit(self) -> str:
        """The unit of :attr:`value` in words."""
        return "nats" if self.bpd is None else "bits per dimension"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The labels that a model takes, and which density its figure is of.

    Attributes:
        classes: Number of classes K; labels are 0 to K - 1.
        figure: ``"x"`` if ``measured`` is of p(x), ``"x|y"`` if it is of p(x given y). The two are never compared.
        other: The figure of the other density, in the unit of ``measured``, if it was measured.
        accuracy: Share of the test items whose label has the greatest p(y given x), by Bayes' rule.
    """

    classes: Annotated[int, Rule(least=2, words="an integer of at least 2")]
    figure: Literal["x", "x|y"]
    other: float | None = None
    accuracy: NotNegative | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """The file that ``flowzoo compress`` makes of all images that the figure is measured on.

    Attributes:
        size: Its length in bytes, all overhead counted; the model's own weights are not in it.
        bpd: The same in bits per dimension.
        integers: Bits per dimension of the model in integer arithmetic, from which the file was coded.
        codec: Version of the file format.
        num_images: Images in it.
        command: The command that makes it again, to the byte.
    """

    size: Count
    bpd: NotNegative
    integers: NotNegative
    codec: Count
    num_images: Count
    command: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How many latents of the base density the flow's inverse maps to finite numbers, in float32.

    Attributes:
        drawn: Latents drawn.
        finite: Those of which every value of the image was finite.
        temperature: Factor on the latents.
        seed: Seed of the generator that drew them.
    """

    drawn: Count
    finite: Seed
    temperature: Positive
    seed: Seed


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformNoise:
    """The figure under uniform noise in place of a learned one: one sample an image, else the measured protocol.

    Attributes:
        bpd: Bits per dimension: the mean over the images.
        stderr: Standard error of that mean.
    """

    bpd: NotNegative
    stderr: NotNegative


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralSamples:
    """The figure with several noise samples an image, else the measured protocol: the mean of their densities.

    Attributes:
        samples: Noise samples an image.
        bpd: Bits per dimension: the mean over the images.
        stderr: Standard error of that mean.
    """

    samples: Annotated[int, Rule(least=2, words="an integer of at least 2")]
    bpd: NotNegative
    stderr: NotNegative


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Proof of code and weights without data: the figures of four integer-generated images or vectors.

    Attributes:
        bpd: Bits per dimension of each image. None of vectors.
        tolerance: Largest difference, in the figures' unit.
        nats: Minus the log-density of each vector, in nats.
    """

    bpd: tuple[NotNegative, NotNegative, NotNegative, NotNegative] | None = None
    tolerance: Positive
    nats: tuple[float, float, float, float] | None = field(default=None, metadata=EXTENSION)

    @property
    def figures(self) -> tuple[float, ...]:
        """The four figures: bits per dimension of images, nats of vectors."""
        return self.bpd or self.nats or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The training that the weights come from, and its cost.

    Attributes:
        recipe: The resolved recipe of each stage, by the name of the file that lies beside the weights.
        command: The command that does with these recipes what was done.
        steps: Optimizer steps.
        hours: Wall-clock time.
        hardware: What it ran on.
        seed: Seed of the run.
        versions: Versions of what it ran with, by name.
        images: Training images seen, repetitions counted.
        weights: Which weights of the run these are, such as its averaged ones at the best validation.
    """

    recipe: Text
    command: Text
    steps: Count
    hours: NotNegative
    hardware: Text
    seed: Seed
    versions: Mapping[str, str] = field(default_factory=dict)
    images: Count | None = None
    weights: Text | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One version of one model.

    Attributes:
        name: The model's name, such as ``"glow-mnist"``.
        version: 1, 2, ...; ``name@version`` never changes once its weights are on the Hub.
        status: ``released``; ``unpublished`` (described, and there are no weights yet); ``deprecated``
            (still loads, with a warning, and is never the default while a released version exists).
        architecture: Name of the architecture.
        config: The architecture's full config as JSON values, not a preset's name.
        config_hash: :func:`flowzoo.config.config_hash` of the two.
        num_params: Number of trainable parameters.
        data: The images that the figure is measured on.
        license: License of the weights, as an SPDX identifier.
        citations: BibTeX keys among the architecture's citations.
        weights: The file, unless the entry is unpublished.
        published: The figure that the paper gives for this configuration.
        published_reason: Why there is none, if there is none.
        measured: What these weights give, written by a flowzoo command only.
        fingerprint: What these weights give on four generated images, written by a flowzoo command only.
        training: Recipe and cost.
        note: What a user should know before using it, such as what its figure must not be compared with.
        one_sample_bpd: The measured figure with one noise sample an image, where it is of several.
        sampling: How many of its samples are finite, counted by a flowzoo command only.
        recommended_temperature: Factor on the latents at which its samples look best.
        kind: What the measured figure is: ``exact``; a ``bound`` (learned noise, augmentation); the mean of
            ``unbiased`` estimates; or of ``biased`` ones. None where the entry does not say: then its dequantization
            does, see :attr:`figure_kind`.
        inverse_kind: How samples are computed: ``analytic``, ``sequential`` or ``numeric``.
        density_passes: Passes through the networks that one density takes.
        sampling_passes: Those that one sample takes.
        valid_bpd: Whether bits per dimension mean anything: false for vectors and for a density of noisy data.
        labels: The labels that the model takes, or None.
        compressed: The images as a file, of a model that can compress; written by a flowzoo command only.
        uniform_noise: The figure under uniform noise, where the measured one is under learned noise.
        several_samples: The figure with several noise samples an image, where the measured one is of one.
    """

    name: Name
    version: Count
    status: Literal["released", "unpublished", "deprecated"]
    architecture: Name
    config: Mapping[str, Any]
    config_hash: Digest
    num_params: Count
    data: Data
    license: Text
    citations: tuple[Text, ...]
    weights: Weights | None = None
    published: Published | None = None
    published_reason: Text | None = None
    measured: Measured | None = None
    fingerprint: Fingerprint | None = None
    training: Training | None = None
    note: Text | None = None
    one_sample_bpd: NotNegative | None = None
    sampling: Sampling | None = None
    recommended_temperature: Positive | None = None
    kind: FigureKind | None = field(default=None, metadata=EXTENSION)
    inverse_kind: InverseKind | None = field(default=None, metadata=EXTENSION)
    density_passes: Count | None = field(default=None, metadata=EXTENSION)
    sampling_passes: Count | None = field(default=None, metadata=EXTENSION)
    valid_bpd: bool = field(default=True, metadata=EXTENSION)
    labels: Labels | None = field(default=None, metadata=EXTENSION)
    compressed: Compressed | None = field(default=None, metadata=EXTENSION)
    uniform_noise: UniformNoise | None = field(default=None, metadata=EXTENSION)
    several_samples: SeveralSamples | None = field(default=None, metadata=EXTENSION)

    @property
    def figure_kind(self) -> FigureKind | None:
        """What the measured figure is; of an older entry as its dequantization tells. None without a figure."""
        if self.kind is not None or self.measured is None:
            return self.kind
        return "bound" if self.measured.dequantization == "variational" else "exact"

    @property
    def key(self) -> str:
        """``"name@version"``, which identifies the entry for good."""
        return f"{self.name}@{self.version}"

    def faults(self) -> Iterator[str]:
        """Contradictions between its fields, in words; none if the entry is consistent."""
        if self.status == "unpublished":
            for name in ("weights", "measured", "fingerprint", "compressed"):
                if getattr(self, name) is not None:
                    yield f"status is 'unpublished' and {name} is given; release it or set {name} to null"
        elif self.weights is None:
            yield f"status is {self.status!r} and weights is null; give them or set it to 'unpublished'"
        yield from self._loopholes()
        yield from self._unit_faults()
        if self.sampling is not None and self.sampling.finite > self.sampling.drawn:
            yield (
                f"sampling.finite is {self.sampling.finite} of sampling.drawn {self.sampling.drawn}; measure it again"
            )
        if self.weights and self.weights.revision is not None and self.weights.repo_id is None:
            yield "weights.revision is given and weights.repo_id is null; name the repository"
        if (self.published is None) == (self.published_reason is None):
            yield "give exactly one of published and published_reason: a figure, or why there is none"

    def _unit_faults(self) -> Iterator[str]:
        """Figures of the wrong unit, of both, or of none."""
        for name in ("measured", "fingerprint"):
            part: Any = getattr(self, name)
            if part is None:
                continue
            if (part.bpd is None) == (part.nats is None):
                yield f"give exactly one of {name}.bpd (images) and {name}.nats (vectors)"
            elif part.bpd is not None and not self.valid_bpd and name == "measured":
                yield "valid_bpd is false and measured.bpd is given; give nats, or set valid_bpd to true"
        if self.labels is not None and self.labels.accuracy is not None and self.labels.accuracy > 1:
            yield f"labels.accuracy is {self.labels.accuracy:g}; expected a share, 0 to 1"

    def _loopholes(self) -> Iterator[str]:
        """Values under which anything would be verified."""
        for name in ("measured", "fingerprint"):
            part: Any = getattr(self, name)
            if part is not None and part.tolerance > MAX_TOLERANCE:
                yield f"{name}.tolerance is {part.tolerance:g}; expected at most {MAX_TOLERANCE:g} bits per dimension"
        for name in ("measured", "training", "sampling"):
            part = getattr(self, name)
            if part is not None and part.seed > MAX_SEED:
                yield f"{name}.seed is above 2^64 - 1, where it stands for another one; give a smaller one"
