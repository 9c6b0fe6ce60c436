"""Everything about a model that is measured before it is published."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowzoo.data.portable import is_own
from flowzoo.evaluation.progress import write_line
from flowzoo.evaluation.sampling import SHIPPING_COUNT, check_shippable, count_finite
from flowzoo.manifest.schema import Data, Entry, Fingerprint, Labels, Sampling, SeveralSamples, UniformNoise
from flowzoo.publishing.several import no_several

if TYPE_CHECKING:
    from flowzoo.evaluation.measure import Evaluation
    from flowzoo.evaluation.protocol import NoiseChoice
    from flowzoo.flow import Flow

__all__ = [
    "SEVERAL",
    "Figures",
    "gains_by_samples",
    "kinds_of",
    "measure_model",
    "run_dataset",
    "several_samples_of",
    "uniform_noise_of",
]

SEVERAL = 8
"""Noise samples an image of a second figure, where the first is of one."""

_PROBES = 8
"""Probes of an estimated log-determinant that a published figure is averaged over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Measurements of one weights file.

    Attributes:
        sampling: The share of finite samples.
        fingerprint: Proof of code and weights.
        evaluation: Bits per dimension on the whole test split.
        one_sample_bpd: The same of one noise sample an image, if ``evaluation`` is of several.
        uniform_noise: Bits per dimension under uniform noise of one sample, if the model's own noise is learned.
        several_samples: Bits per dimension with several noise samples an image, if ``evaluation`` is of one.
        stated: What the flow says of itself: the entry's fields on kinds, passes and labels.
    """

    sampling: Sampling
    fingerprint: Fingerprint
    evaluation: Evaluation
    one_sample_bpd: float | None = None
    uniform_noise: UniformNoise | None = None
    several_samples: SeveralSamples | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)

    def of(self, entry: Entry) -> Entry:
        """The entry with these figures."""
        from flowzoo.evaluation.record import measured_of

        return dataclasses.replace(
            entry,
            measured=measured_of(self.evaluation, entry),
            one_sample_bpd=self.one_sample_bpd,
            uniform_noise=self.uniform_noise,
            several_samples=self.several_samples,
            fingerprint=self.fingerprint,
            sampling=self.sampling,
            **self.stated,
        )


def measure_model(
    directory: Path,
    flow: Flow,
    data: Data,
    *,
    samples: int = 1,
    dataset: str | None = None,
    data_root: Path | None = None,
) -> Figures:
    """Measures an exported model; first whether it may ship at all, which takes less time than the rest.

    Args:
        directory: The export.
        flow: Its flow.
        data: The images that the figure is of.
        samples: Noise samples an image.
        dataset: Id of the data set on this machine; None for ``data.id``.
        data_root: Where data sets are.

    Raises:
        IntegrityError: Some of its samples are not finite.
        DataUnavailable: The images are not here.
    """
    from flowzoo.data import get_dataset
    from flowzoo.evaluation.measure import evaluate
    from flowzoo.weights.fingerprint import take_fingerprint

    identifier = dataset or data.id
    # Missing ones are said now, not after the samples.
    items = get_dataset(identifier).load(data.split, data_root)
    write_line(f"Drawing {SHIPPING_COUNT} samples, to see that they are finite.")
    sampling = count_finite(flow)
    check_shippable(directory.name if flow.card is None else flow.card.name, sampling)
    labelled = flow.labels is not None and items.labels is not None
    probes = None if flow.log_det_kind == "exact" else _PROBES

    def measured(count: int, *, first: bool, conditional: bool, noise: NoiseChoice = "own") -> Evaluation:
        given = conditional if labelled else None
        write_line(f"Measuring on the {data.split} split: {_in_words(noise, count, probes, given)}.")
        return evaluate(
            f"path:{directory}",
            samples=count,
            probes=probes,
            conditional=conditional,
            classify=first and labelled,
            noise=noise,
            audit=first,
            dataset=identifier,
            split=data.split,
            data_root=data_root,
        )

    found = [
        measured(count, first=count == samples, conditional=labelled)
        for count in sorted({1, samples}, reverse=True)
    ]
    other = measured(samples, first=False, conditional=False) if labelled else None
    uniform = None
    if flow.dequantization.is_lower_bound:
        uniform = uniform_noise_of(measured(1, first=False, conditional=labelled, noise="uniform"))
    several = None
    if samples == 1 and gains_by_samples(flow):
        several = several_samples_of(measured(SEVERAL, first=False, conditional=labelled))
    return Figures(
        sampling=sampling,
        fingerprint=take_fingerprint(flow),
        evaluation=found[0],
        one_sample_bpd=found[-1].bpd if samples > 1 else None,
        uniform_noise=uniform,
        several_samples=several,
        stated=_stated(flow, found[0], other),
    )


def _in_words(noise: NoiseChoice, samples: int, probes: int | None, conditional: bool | None) -> str:
    """How the split is measured, for whoever waits for it."""
    whose = "uniform noise" if noise == "uniform" else "the model's noise"
    words = [f"{samples} sample{'s' if samples > 1 else ''} of {whose} for each item"]
    if probes is not None:
        words.append(f"{probes} probes")
    if conditional is not None:
        words.append("labels given" if conditional else "labels unknown")
    return ", ".join(words)


def uniform_noise_of(found: Evaluation) -> UniformNoise | None:
    """A measurement under uniform noise in the manifest's form; None if the model gives such images no density."""
    return UniformNoise(bpd=found.bpd, stderr=found.stderr) if math.isfinite(found.bpd) else None


def gains_by_samples(flow: Flow) -> bool:
    """Whether several noise samples an image give another figure than one, that is, :func:`no_several` has no reason.

    The mean of exponentials of estimated log-densities would be biased by their noise. A density that is the same all
    over a grey level, such as a histogram's, is its own mean.
    """
    reason = no_several(
        noise=flow.noise_kind != "none",
        valid_bpd=flow.valid_bpd,
        estimated=flow.log_det_kind != "exact",
        flat=lambda: _flat(flow),
    )
    return reason is None


def _flat(flow: Flow) -> bool:
    """Whether the density of four made images is the same under any noise."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(2**flow.n_bits, (4, *flow.data_shape), generator=generator) * 2 ** (
        8 - flow.n_bits
    )
    exact = copy.deepcopy(flow).double()
    with torch.no_grad():
        one, other = (exact.log_prob(images.to(torch.uint8), generator=generator) for _ in range(2))
    return torch.allclose(one, other, rtol=1e-9)


def several_samples_of(found: Evaluation) -> SeveralSamples:
    """A measurement of several noise samples in the manifest's form."""
    return SeveralSamples(samples=found.protocol.samples, bpd=found.bpd, stderr=found.stderr)


def _stated(flow: Flow, found: Evaluation, other: Evaluation | None) -> dict[str, Any]:
    """The entry's fields on what kind of model it is; ``other`` is the figure without the labels."""
    labels = None
    if flow.labels is not None:
        labels = Labels(
            classes=flow.labels.classes,
            figure="x" if other is None else "x|y",
            other=None if other is None else other.bpd if flow.valid_bpd else other.nats,
            accuracy=None if other is None else found.accuracy,
        )
    return kinds_of(flow) | {"labels": labels}


def kinds_of(flow: Flow) -> dict[str, Any]:
    """The entry's fields on a flow that follow from its config, without a measurement."""
    return {
        "kind": "bound" if flow.is_lower_bound and flow.log_det_kind == "exact" else flow.log_det_kind,
        "inverse_kind": flow.inverse_kind,
        "density_passes": max(1, flow.density_passes),
        "sampling_passes": max(1, flow.sampling_passes),
        "valid_bpd": flow.valid_bpd,
        "labels": None if flow.labels is None else Labels(classes=flow.labels.classes, figure="x|y"),
    }


def run_dataset(run: Path) -> str | None:
    """The data set of a run as this machine knows it, if it is one's own images; an export names no directories."""
    if not (run / "run.json").is_file():
        return None
    from flowzoo.training.run_dir import RunDir

    recipe = RunDir(run).header().get("recipe") or {}
    dataset = str((recipe.get("data") or {}).get("dataset", ""))
    return dataset if is_own(dataset) else None
