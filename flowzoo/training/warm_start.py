"""Starting from the weights of a narrower model: a wider one that computes the same, and learns on from there.

New outputs of a layer keep the values that they were drawn with; old outputs do not listen to new inputs yet, whose
weights begin at zero (the widening of Chen et al. 2016, Net2Net, arXiv 1511.05641, by new units in place of copied
ones).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from flowzoo.config import config_to_dict
from flowzoo.distributed import World
from flowzoo.errors import InputError
from flowzoo.evaluation.likelihood import likelihoods
from flowzoo.training.export import built_from
from flowzoo.weights.checkpoint import load_weights, read_metadata

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from flowzoo.data.images import ImageSet
    from flowzoo.flow import Flow

__all__ = ["start_from"]

CHECKED_IMAGES = 16
TOLERANCE = 1e-3
"""Bits/dim between the two models, in float32, that count as the same; a wrong widening costs whole bits."""


def start_from(flow: Flow, path: Path, images: ImageSet) -> None:
    """Loads a weights file into ``flow``, whose networks may be wider than those of the file.

    Args:
        flow: The model to train.
        path: Weights of the same model, or of one whose tensors have the same names and are no larger.
        images: Some that both models understand; the first few show whether the wider model computes the same.

    Raises:
        IntegrityError: The file is damaged, or of another model.
        InputError: Both models have the same tensors, and yet the wider one computes something else.
    """
    metadata = read_metadata(path)
    config = None if flow.config is None else config_to_dict(flow.config)
    if metadata.get("architecture") != flow.architecture or metadata.get("config") in (None, config):
        load_weights(flow, path)
        return
    narrow = built_from(path)
    drawn, trained = flow.state_dict(), narrow.state_dict()
    same = all(name in drawn and drawn[name].shape == tensor.shape for name, tensor in trained.items())
    if same or not _contains(drawn, trained):
        load_weights(flow, path)  # Where they do not fit, it says what differs.
        return
    if (narrow.data_shape, narrow.n_bits) != (flow.data_shape, flow.n_bits):
        raise InputError(
            f"{path} is of a narrower model, of images {narrow.data_shape} with {narrow.n_bits} bits; only one of "
            f"the same images, {flow.data_shape} with {flow.n_bits} bits, can be widened."
        )
    flow.load_state_dict({name: _widened(drawn[name], trained[name]) for name in drawn})
    difference = _difference(narrow, flow, images.take(CHECKED_IMAGES))
    if not difference <= TOLERANCE:
        raise InputError(
            f"{path} is of a narrower model, and with its weights the wider one does not compute the same (off by "
            f"{difference:.3g} bits/dim, expected at most {TOLERANCE}). Layers that mix all their channels in one, "
            "such as normalization or gates, cannot be widened: train the wider model from the start."
        )


def _contains(wide: dict[str, Tensor], narrow: dict[str, Tensor]) -> bool:
    """Whether all tensors are there by name, with as many dimensions, none smaller."""
    return set(wide) == set(narrow) and all(
        wide[name].dim() == tensor.dim()
        and all(new >= old for new, old in zip(wide[name].shape, tensor.shape, strict=True))
        for name, tensor in narrow.items()
    )


def _widened(drawn: Tensor, trained: Tensor) -> Tensor:
    """``drawn`` ``(O', I', ...)`` with ``trained`` ``(O, I, ...)`` in its corner; zero where O meets new inputs."""
    wide = drawn.clone()
    if wide.dim() > 1:
        wide[: len(trained)] = 0
    wide[tuple(slice(size) for size in trained.shape)] = trained
    return wide


def _difference(narrow: Flow, wide: Flow, images: ImageSet) -> float:
    """The largest difference of an image's bits/dim."""
    training = wide.training
    where = World(0, 1, torch.device("cpu"))
    bits = [flow.per_dim(likelihoods(flow.eval(), images, where).log_prob) for flow in (narrow, wide)]
    wide.train(training)
    return float((bits[0] - bits[1]).abs().max())
