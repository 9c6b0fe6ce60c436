"""Training checkpoints: tensors as safetensors, the rest as JSON, each directory whole or absent."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from flowzoo.atomic import new_directory, sha256_file, write_text
from flowzoo.config import parse_config
from flowzoo.errors import CheckpointError, ConfigError, IntegrityError
from flowzoo.training.plain_values import read_small_file
from flowzoo.weights.checkpoint import read_tensors, write_tensors

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
    """The state of a training besides its tensors.

    Random numbers need no state: each is keyed by (seed, step), see :mod:`flowzoo.evaluation.noise`.

    Attributes:
        step: Updates done (skipped ones included).
        images: Training images seen.
        seconds: Compute seconds over all sessions, validation and lost work included.
        best_bpd: Best validation so far, bits per dimension; of a density, nats per dimension.
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

    def __post_init__(self) -> None:
        counts = (self.step, self.images, self.seconds, self.stale, self.bad, self.skipped)
        good = all(0 <= count < math.inf for count in counts) and isinstance(self.position, dict)
        good &= all(type(value) is int for value in self.position.values()) if good else False
        if not good or not math.isfinite(self.best_bpd or 0.0):
            raise ConfigError("a count is negative or not finite, or the data position is none.")


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
    if (same := _sound_facts(target)) is not None:
        # Weights of a step are the same whenever it is saved, so that only times and counts can differ. Writing the
        # directory anew would have a moment in which neither the old nor the new one is in place.
        write_text(target / FACTS, _sealed(progress, same["sha256"], same["size"]))
    else:
        with new_directory(target) as temporary:
            digest, size = write_tensors(temporary / TENSORS, tensors, {"step": progress.step})
            write_text(temporary / FACTS, _sealed(progress, digest, size))
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
    try:
        facts = _read_facts(path)
        if facts["schema"] != SCHEMA:
            raise CheckpointError(
                f"Checkpoint {path} has format {facts['schema']}; this flowzoo reads {SCHEMA}."
            )
        progress = parse_config(Progress, facts["progress"], str(path))
        if progress.step != int(path.name):
            raise ConfigError(f"it is of step {progress.step}")
        return progress, read_tensors(path / TENSORS)
    except DAMAGE as error:
        raise CheckpointError(f"Checkpoint {path} is damaged: {error!r}.") from error


DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, IntegrityError)
"""Errors that reading a damaged checkpoint can end in."""


def _read_facts(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint whose bytes are those that its digests promise."""
    facts: dict[str, Any] = json.loads(read_small_file(path / FACTS))
    if not (path / TENSORS).is_file():
        raise OSError(f"{TENSORS} is not a file")
    digest = facts.pop("digest")
    if digest != _digest(facts) or facts["sha256"] != sha256_file(path / TENSORS):
        raise CheckpointError(f"Checkpoint {path} is damaged: its bytes do not match its digest.")
    return facts


def _sound_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a checkpoint that can be read; None for any other."""
    try:
        load_checkpoint(path)
        return _read_facts(path)
    except CheckpointError:
        return None


def _sealed(progress: Progress, digest: str, size: int) -> str:
    """The text of ``state.json``, with a digest over itself."""
    facts = {"schema": SCHEMA, "progress": asdict(progress), "sha256": digest, "size": size}
    return json.dumps(facts | {"digest": _digest(facts)})


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
