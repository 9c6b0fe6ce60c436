"""Training checkpoints: tensors as safetensors, the rest as JSON, each directory whole or absent."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from flowzoo.atomic import new_directory, sha256_file, write_text
from flowzoo.config import parse_config
from flowzoo.errors import CheckpointError, ConfigError
from flowzoo.weights.checkpoint import write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

SCHEMA = 1
TENSORS, FACTS = "state.safetensors", "state.json"


@dataclass(slots=True, kw_only=True)
class Window:
    """Sums over the updates since the last row of metrics."""

    updates: int = 0
    loss: float = 0.0
    norm: float = 0.0
    clipped: int = 0
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a training stands.

    Random numbers need no state: each is keyed by (seed, step), see :mod:`flowzoo.evaluation.noise`.

    Attributes:
        step: Updates done (skipped ones included).
        images: Training images seen.
        seconds: Compute seconds over all sessions, validation and lost work included.
        best_bpd: Best validation so far, bits per dimension.
        best_step: When that was.
        stale: Validations since.
        bad: Updates in a row that were not finite.
        skipped: Updates skipped altogether.
        position: The data stream's position.
        window: Sums since the last row of metrics.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    best_bpd: float | None = None
    best_step: int | None = None
    stale: int = 0
    bad: int = 0
    skipped: int = 0
    position: Any = field(default_factory=dict)
    window: Window = field(default_factory=Window)


def save_checkpoint(
    directory: Path, progress: Progress, tensors: dict[str, Tensor], keep: int | None
) -> Path:
    """Writes a checkpoint and prunes the oldest, and any of later steps: those were passed over as damaged.

    Args:
        directory: The run's checkpoints.
        progress: Where the training stands.
        tensors: Everything else.
        keep: Number of newest checkpoints to keep; None removes none.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: The disk refuses; older checkpoints are intact.
    """
    target = directory / f"{progress.step:09d}"
    with new_directory(target) as temporary:
        digest, size = write_tensors(temporary / TENSORS, tensors, {"step": progress.step})
        facts = {"schema": SCHEMA, "progress": asdict(progress), "sha256": digest, "size": size}
        write_text(temporary / FACTS, json.dumps(facts | {"digest": _digest(facts)}))
    if keep is not None:
        found = list_checkpoints(directory)
        later = [path for path in found if int(path.name) > progress.step]
        for old in later + found[len(later) + keep :]:
            shutil.rmtree(old, ignore_errors=True)
    return target


def list_checkpoints(directory: Path) -> list[Path]:
    """Checkpoints of a run, newest first; whether they are sound is not looked at."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if p.is_dir() and p.name.isdigit()), reverse=True)


def load_newest(
    directory: Path, say: Callable[[str], None], *, back: int = 0
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Reads the newest sound checkpoint, or one before it.

    Args:
        directory: The run's checkpoints.
        say: Told about each damaged checkpoint that is passed over.
        back: How many of the newest to leave aside; at least one is looked at.

    Returns:
        Progress and tensors, or None if there is no checkpoint at all.

    Raises:
        CheckpointError: There are checkpoints, and every one is damaged.
    """
    found = list_checkpoints(directory)
    for path in found[max(0, min(back, len(found) - 1)) :]:
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            say(f"{error} Falling back to the checkpoint before it.")
    if found:
        raise CheckpointError(
            f"Every checkpoint in {directory} is damaged ({len(found)} of them). "
            "Start the training again in another directory."
        )
    return None


def load_checkpoint(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Reads one checkpoint, digests first.

    Raises:
        CheckpointError: It is damaged, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
        digest = facts.pop("digest")
        if digest != _digest(facts) or facts["sha256"] != sha256_file(path / TENSORS):
            raise CheckpointError(f"Checkpoint {path} is damaged: its bytes do not match its digest.")
        if facts["schema"] != SCHEMA:
            raise CheckpointError(
                f"Checkpoint {path} has format {facts['schema']}; this flowzoo reads {SCHEMA}."
            )
        progress = parse_config(Progress, facts["progress"], str(path))
        return progress, load_file(path / TENSORS)
    except (OSError, ValueError, KeyError, AttributeError, ConfigError, SafetensorError) as error:
        raise CheckpointError(f"Checkpoint {path} is damaged: {error!r}.") from error


def _digest(facts: dict[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix:name``."""
    return {f"{prefix}:{name}": tensor for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one prefix under their own names."""
    start = f"{prefix}:"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
