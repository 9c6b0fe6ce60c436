"""``evaluate`` of whatever is at hand: a model by its name, or a flow and data."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from flowzoo.data.epochs import as_set
from flowzoo.distributed import world
from flowzoo.errors import InputError
from flowzoo.evaluation import measure
from flowzoo.evaluation.protocol import protocol_of
from flowzoo.evaluation.trained_model import Target
from flowzoo.flow import Flow

if TYPE_CHECKING:
    import os

    from flowzoo.evaluation.measure import Evaluation
    from flowzoo.evaluation.protocol import Dtype, NoiseChoice

__all__ = ["evaluate", "evaluate_flow"]


def evaluate(model: str | Flow, data: Any = None, **options: Any) -> Evaluation:
    """Measures a model: bits per dimension of images, nats of a density, over a split.

    Args:
        model: A flow; or a name as for :func:`flowzoo.evaluation.measure.evaluate`: of a manifest, a run's directory, a
            path.
        data: Of a flow: a data set's id, a set, a tensor or array, or a pair of one and its labels. Of a name it may be
            a data set's id, in place of ``dataset``.
        **options: Of a flow, those of :func:`evaluate_flow`; of a name, those of
            :func:`flowzoo.evaluation.measure.evaluate`.

    Returns:
        The measurement.

    Raises:
        FlowzooError: Model or data are not to be had, or not sound.
    """
    if isinstance(model, Flow):
        return evaluate_flow(model, data, **options)
    if not isinstance(model, str):
        raise InputError(f"evaluate got a {type(model).__name__}; expected a flow, or the name of a model.")
    if data is None:
        return measure.evaluate(model, **options)
    if not isinstance(data, str):
        raise InputError(
            f"evaluate got the name {model!r} and a {type(data).__name__}; give data as a data set's id, or load the "
            "model: flowzoo.evaluate(flowzoo.load(...), data)."
        )
    return measure.evaluate(model, dataset=data, **options)


def evaluate_flow(
    flow: Flow,
    data: Any,
    *,
    split: str = "test",
    data_root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    samples: int = 1,
    probes: int = 1,
    conditional: bool | None = None,
    classify: bool = False,
    noise: NoiseChoice = "own",
    seed: int = 0,
    dtype: Dtype | None = None,
    batch_size: int = 100,
    device: str | torch.device | None = None,
    audit: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Measures a flow that is at hand; a copy of it is measured, so that it may be in the middle of a training.

    Args:
        flow: The flow.
        data: A data set's id, a set, a tensor or array, or a pair of one and its labels.
        split: The split of a data set that is given by its id.
        data_root: Where data sets are.
        limit: Only the first items; the result is marked partial.
        samples: Noise samples an image.
        probes: Probes of an estimated log-determinant.
        conditional: Whether log P(x|y) is measured; None does where flow and data have labels.
        classify: Whether to find the likeliest label of each item too.
        noise: ``"own"`` is the flow's; ``"uniform"`` puts uniform noise in its place, without the audit.
        seed: Key of the noise.
        dtype: ``"float32"`` or ``"float64"``; None for the flow's own.
        batch_size: Items computed at a time; does not change the result.
        device: Such as ``"cuda"``; None for the flow's own.
        audit: Whether to check that items are reconstructed, in the same pass.
        progress: Whether a terminal gets a bar.

    Raises:
        InputError: The data are not those of the flow, or an argument is impossible.
        FlowzooError: The data set is unknown, or not here.
    """
    if data is None:
        raise InputError(
            "evaluate got a flow and no data; give a data set's id, a set, a tensor or an array."
        )
    found = as_set(data, split, data_root)
    if tuple(found.data_shape) != tuple(flow.data_shape):
        raise InputError(
            f"The flow is over {flow.data_kind} {tuple(flow.data_shape)}, and {found.id!r} has items of shape "
            f"{tuple(found.data_shape)}."
        )
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1 item.")
    own = flow.draw_noise(0)
    name = flow.architecture or "flow"
    target = Target(name=name, flow=copy.deepcopy(flow), entry=None, dataset=found.id, split=found.split)
    protocol = protocol_of(target, samples, seed, dtype or _dtype(own.dtype), probes=probes, noise=noise)
    has_labels = flow.labels is not None and found.labels is not None
    if conditional and not has_labels:
        lacking = "the flow has no classes" if flow.labels is None else f"{found.id!r} has no labels"
        raise InputError(f"log P(x|y) cannot be measured: {lacking}. Leave conditional out.")
    with world(device if device is not None else own.device) as where:
        return measure.measure(
            target,
            found if limit is None else found.take(limit),
            where,
            replace(protocol, conditional=has_labels if conditional is None else conditional),
            total=len(found),
            batch_size=batch_size,
            audit=audit,
            classify=classify,
            progress=progress,
        )


def _dtype(dtype: torch.dtype) -> Dtype:
    return "float64" if dtype == torch.float64 else "float32"
