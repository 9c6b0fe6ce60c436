"""``evaluate``: bits per dimension of a model over a split, and whether that is what the manifest says."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from flowzoo.data import get_dataset
from flowzoo.data.portable import is_own
from flowzoo.distributed import World, world
from flowzoo.errors import DataUnavailable, InputError
from flowzoo.evaluation.audit import Reconstruction, ReconstructionAudit
from flowzoo.evaluation.environment import environment, versions
from flowzoo.evaluation.facts import dequantization_of, facts_of, figures_of, truth_of
from flowzoo.evaluation.likelihood import Likelihoods, likelihoods
from flowzoo.evaluation.metrics import Mean, mean_and_stderr, nats_to_bpd
from flowzoo.evaluation.progress import Bar
from flowzoo.evaluation.protocol import Dtype, NoiseChoice, Protocol, protocol_of, under
from flowzoo.evaluation.trained_model import Target, find_target
from flowzoo.evaluation.verdict import Verdict, judge

if TYPE_CHECKING:
    import os

    from torch import Tensor

    from flowzoo.data.images import ImageSet
    from flowzoo.flow import Flow


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A measurement.

    Attributes:
        name: The model, as it was asked for.
        bpd: Mean bits per dimension; NaN of a density, which has none.
        stderr: Standard error of that mean.
        nats: Mean of -log P(x), or of -log p(x), in nats.
        nats_stderr: Standard error of that mean.
        probe_stderr: The part of the standard error, in the unit of the figure, that more probes would take away;
            NaN if the log-determinant is exact or a single probe was taken.
        kind: The log-determinant: ``exact``, ``unbiased`` or ``biased``.
        inverse_kind: How samples are had: ``analytic``, ``sequential`` or ``numeric``.
        unit: ``bits/dim``, or ``nats`` of a density.
        accuracy: Share of images whose label is the likeliest by Bayes' rule; NaN if that was not asked for.
        num_images: Images measured.
        partial: Whether that is less than the split.
        dataset: Data set id.
        split: Its split.
        dequantization: ``uniform`` or ``variational``.
        is_lower_bound: Whether learned noise makes the likelihood a bound.
        protocol: How it was measured.
        reconstruction: The audit, if there was one.
        seconds: Wall-clock time of the measurement.
        versions: Versions of what it ran with.
        hardware: What it ran on.
        verdict: Comparison with the manifest.
        per_image: Log-likelihood of each image.
        dims: D, the number of values in an image.
        data_kind: ``images`` or ``vectors``: what the items are.
        true_entropy: Of the density that the vectors were drawn from, in nats: no model has fewer on average. None
            where it is not known.
        divergence: Estimate of the Kullback-Leibler divergence of the model from that density, in nats: the mean of
            log p(x) - log q(x) over these vectors. NaN where the density is not known.
        divergence_stderr: Standard error of that mean, which lacks the scatter that both densities share.
        classes: K of a conditional model, which has a figure given the label and one without; 0 of any other.
        label_dropout: Whether the model was trained with labels left out, so that it has an own P(x).
    """

    name: str
    bpd: float
    stderr: float
    nats: float
    nats_stderr: float
    probe_stderr: float
    kind: str
    inverse_kind: str
    unit: str
    accuracy: float
    num_images: int
    partial: bool
    dataset: str
    split: str
    dequantization: str
    is_lower_bound: bool
    protocol: Protocol
    reconstruction: Reconstruction | None
    seconds: float
    versions: dict[str, str]
    hardware: str
    verdict: Verdict
    per_image: Likelihoods
    dims: int
    data_kind: str = "images"
    true_entropy: float | None = None
    divergence: float = math.nan
    divergence_stderr: float = math.nan
    classes: int = 0
    label_dropout: bool = False

    @property
    def above_entropy(self) -> float | None:
        """Nats above the true entropy: how far from the optimum, with :attr:`nats_stderr`; None if not known."""
        return None if self.true_entropy is None else self.nats - self.true_entropy

    @property
    def images_per_s(self) -> float:
        """Images measured a second, all passes and samples included."""
        return self.num_images / max(self.seconds, 1e-9)


def evaluate(
    name: str,
    *,
    samples: int | None = None,
    probes: int | None = None,
    conditional: bool | None = None,
    classify: bool = False,
    noise: NoiseChoice = "own",
    seed: int | None = None,
    dtype: Dtype | None = None,
    batch_size: int = 100,
    device: str | torch.device | None = None,
    limit: int | None = None,
    dataset: str | None = None,
    split: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
    audit: bool = True,
    progress: bool = True,
) -> Evaluation:
    """Measures a model's bits per dimension.

    Args:
        name: A manifest's name, a run's directory, or a path; see :func:`find_target`.
        samples: Noise samples an image; None for the manifest's protocol, 1 without one.
        probes: Probes of an estimated log-determinant; None for the manifest's protocol, 1 without one.
        conditional: Whether log P(x|y) is measured rather than log P(x); None does where model and data have labels.
        classify: Whether to find the likeliest label of each image too, by Bayes' rule: a pass for each label.
        noise: ``"own"`` is the model's; ``"uniform"`` puts uniform noise in its place, of one sample unless
            ``samples`` says otherwise, and leaves the audit out, which is of the model's own noise.
        seed: Key of the noise; None for the manifest's, 0 without one.
        dtype: ``"float32"`` or, for an audit of rounding, ``"float64"``; None for the manifest's.
        batch_size: Images computed at a time; does not change the result.
        device: Such as ``"cuda"``; None takes a GPU if there is one.
        limit: Only the first images; the result is marked partial.
        dataset: Another data set than the model's own.
        split: Another split than ``test``.
        data_root: Where data sets are.
        audit: Whether to check that images are reconstructed, in the same pass.
        progress: Whether a terminal gets a bar.

    Returns:
        The measurement with its verdict.

    Raises:
        FlowzooError: Model or data are not to be had, or not sound.
    """
    with world(device) as where:
        target = find_target(name)
        images, total = _images(target, dataset, split, data_root, limit)
        protocol = protocol_of(target, samples, seed, dtype, probes=probes, noise=noise)
        if conditional is None and target.entry is not None and target.entry.labels is not None:
            conditional = target.entry.labels.figure == "x|y"
        protocol = replace(protocol, conditional=_is_conditional(target.flow, images, conditional))
        return measure(
            target,
            images,
            where,
            protocol,
            total=total,
            batch_size=batch_size,
            audit=audit,
            classify=classify,
            progress=progress,
        )


def _is_conditional(flow: Flow, images: ImageSet, asked: bool | None) -> bool:
    """Whether log P(x|y) is measured.

    Raises:
        InputError: That is asked for, and model or data have no labels.
    """
    lacking = None
    if flow.labels is None:
        lacking = "the model is not conditional"
    elif images.labels is None:
        lacking = f"{images.id} has no labels"
    if asked and lacking:
        raise InputError(f"log P(x|y) cannot be measured: {lacking}. Leave conditional out.")
    return lacking is None if asked is None else asked


def _images(
    target: Target,
    dataset: str | None,
    split: str | None,
    root: str | os.PathLike[str] | None,
    limit: int | None,
) -> tuple[ImageSet, int]:
    identifier = dataset or target.dataset
    if not identifier:
        raise InputError(f"{target.name}: nothing says what data it is for; give --data ID (flowzoo data).")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1 image.")
    try:
        images = get_dataset(identifier).load(split or target.split, root)
    except DataUnavailable as error:
        if dataset is not None or not is_own(identifier):
            raise
        raise DataUnavailable(
            f"{target.name} was measured on somebody's own images, {identifier}, which are not here: {error} "
            "Say where they are with --data folder:DIR?size=N or --data numpy:FILE.npy."
        ) from error
    if images.kind != target.flow.data_kind:
        raise InputError(
            f"{target.name} is a model of {target.flow.data_kind}, and {identifier} holds {images.kind}; name another "
            "data set."
        )
    return (images if limit is None else images.take(limit)), len(images)


def measure(
    target: Target,
    images: ImageSet,
    where: World,
    protocol: Protocol,
    *,
    total: int | None = None,
    batch_size: int = 100,
    order: Tensor | None = None,
    audit: bool = True,
    classify: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Measures a flow on images; :func:`evaluate` without the finding.

    Args:
        target: The flow, which is moved to the device and the protocol's dtype.
        images: The images.
        where: This process.
        protocol: How to measure.
        total: Images of the whole split, if these are fewer.
        batch_size: Images computed at a time.
        order: Order to go through the images in; does not change the result.
        audit: Whether to check reconstructions.
        classify: Whether to find the likeliest label of each image.
        progress: Whether a terminal gets a bar.
    """
    target = replace(target, flow=under(target.flow, protocol.noise))
    flow = _ready(target.flow, where, protocol)
    bar = Bar(len(images), unit=flow.data_kind[:-1], shown=progress and where.main)
    checker = ReconstructionAudit(flow) if audit and protocol.noise == "own" else None
    labels = images.labels if protocol.conditional else None

    def on_batch(indices: Tensor, x: Tensor, y: Tensor | int | None) -> None:
        if checker is not None:
            checker.add(indices, x, y)
        bar.advance(len(indices) * where.size)

    began = time.monotonic()
    try:
        found = likelihoods(
            flow,
            images,
            where,
            labels=labels,
            samples=protocol.samples,
            probes=protocol.probes,
            seed=protocol.seed,
            batch_size=batch_size,
            order=order,
            on_batch=on_batch,
        )
        reconstruction = checker.result(where) if checker is not None else None
        accuracy = _accuracy(flow, images, where, protocol, batch_size) if classify else math.nan
    finally:
        bar.close()
    mean = mean_and_stderr(nats_to_bpd(found.log_prob, flow.dims) if flow.valid_bpd else -found.log_prob)
    partial = total is not None and len(images) < total
    return Evaluation(
        name=target.name,
        **figures_of(flow, found),
        **facts_of(flow),
        accuracy=accuracy,
        num_images=mean.count,
        partial=partial,
        dataset=images.id,
        split=images.split,
        protocol=protocol,
        reconstruction=reconstruction,
        seconds=time.monotonic() - began,
        versions=versions(target.flow.architecture),
        hardware=str(environment(where.device)["hardware"]),
        verdict=_verdict(target, mean, protocol, images, partial),
        per_image=found,
        **truth_of(images, found, conditional=protocol.conditional),
    )


def _verdict(target: Target, mean: Mean, protocol: Protocol, images: ImageSet, partial: bool) -> Verdict:
    """The figure beside the one on record, if there is one."""
    return judge(
        target.entry, mean, protocol, images,
        partial=partial, dequantization=dequantization_of(target.flow), listed=target.listed,
    )  # fmt: skip


def _accuracy(flow: Flow, images: ImageSet, where: World, protocol: Protocol, batch_size: int) -> float:
    """Share of images whose own label has the largest log P(x|y), under the same noise for each.

    Raises:
        InputError: Model or data have no labels.
    """
    if flow.labels is None or images.labels is None:
        raise InputError("classify needs a conditional model and data with labels.")
    found = [
        likelihoods(
            flow, images, where, labels=label, samples=protocol.samples, probes=protocol.probes,
            seed=protocol.seed, batch_size=batch_size,
        ).log_prob
        for label in range(flow.labels.classes)
    ]  # fmt: skip
    guesses = torch.stack(found, dim=1).argmax(dim=1)
    return float((guesses == images.labels).double().mean())


def _ready(flow: Flow, where: World, protocol: Protocol) -> Flow:
    dtype = torch.float64 if protocol.dtype == "float64" else torch.float32
    return flow.to(device=where.device, dtype=dtype).eval()
