"""``save``: a flow, however it was trained, as a directory that ``load`` reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowzoo.atomic import write_text
from flowzoo.data.portable import portable_id
from flowzoo.directories import replaced_directory
from flowzoo.errors import InputError
from flowzoo.evaluation.environment import versions
from flowzoo.training.export import (
    CARD,
    WEIGHTS,
    built_from,
    check_name,
    is_export,
    stored_dtype,
    weights_metadata,
)
from flowzoo.weights.checkpoint import save_weights
from flowzoo.weights.fingerprint import take_fingerprint
from flowzoo.weights.safetensors_header import read_header

if TYPE_CHECKING:
    import os

    import torch

    from flowzoo.flow import Flow

__all__ = ["save"]


def save(
    flow: Flow,
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    dataset: str = "",
    dtype: torch.dtype | None = None,
) -> Path:
    """Writes a flow as a directory that ``flowzoo.load("path:DIR")`` reads.

    The directory holds ``model.safetensors``, and ``flowzoo.json`` with architecture, config, digest and fingerprint.
    It changes as a whole: killed in between, it is as it was. The flow is neither moved nor changed.

    Args:
        flow: A flow that an architecture built (:func:`flowzoo.create`, :func:`flowzoo.load`), trained.
        directory: The directory to write: missing, empty, or an earlier one of the same name.
        name: The model's name; None for that of its architecture.
        dataset: Id of the data that it was trained on, which ``flowzoo eval`` then measures it on.
        dtype: Stored type, such as ``torch.float16`` for half the size; None for each tensor's own.

    Returns:
        The path of the weights file.

    Raises:
        InputError: No architecture built the flow, it has seen no data, the directory holds something else, or the
            name cannot be a model's.
        IntegrityError: A weight is not finite, or no finite figures come of it.
        CheckpointError: The disk refuses.
    """
    if flow.architecture is None or flow.config is None:
        raise InputError(
            "save got a flow that no architecture built, and nobody could build it again to load the weights; make it "
            "an architecture of a plugin (docs/plugins.md), or keep it with torch.save(flow.state_dict(), FILE)."
        )
    name, target = check_name(name or flow.architecture), Path(directory)
    described: dict[str, Any] = weights_metadata(flow, name, portable_id(dataset))
    fingerprint = take_fingerprint(flow)  # before anything is written: it needs sound weights
    with replaced_directory(target, lambda path: is_export(path, name), f"an earlier save of {name}") as new:
        digest, size = save_weights(flow, new / WEIGHTS, described, dtype=dtype)
        if dtype is not None:
            fingerprint = _of_stored(new / WEIGHTS)
        codes = {info.dtype for info in read_header(new / WEIGHTS).tensors.values()}
        card = described | {
            "weights": {
                "filename": WEIGHTS,
                "sha256": digest,
                "size": size,
                "dtype": stored_dtype(codes),
            },
            "fingerprint": asdict(fingerprint),
            "versions": versions(flow.architecture),
        }
        write_text(new / CARD, json.dumps(card, indent=2) + "\n")
    return target / WEIGHTS


def _of_stored(path: Path) -> Any:
    """The fingerprint of weights that were rounded when they were stored."""
    return take_fingerprint(built_from(path).eval())
