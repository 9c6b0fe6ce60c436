"""Updates whose loss or gradient is not finite: stop, skip them, or go back to a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from flowzoo.errors import CheckpointError, TrainingDiverged
from flowzoo.training.diagnose import diagnose
from flowzoo.training.state import load_newest

if TYPE_CHECKING:
    from flowzoo.data.pipeline import Batch
    from flowzoo.training.loop import Loop
    from flowzoo.training.step import Gradients

__all__ = ["handle_bad"]


def handle_bad(loop: Loop, gradients: Gradients, batch: Batch) -> None:
    """Does what the recipe's ``on_nan`` says.

    Raises:
        TrainingDiverged: It says to stop, or too many updates in a row were bad.
        CheckpointError: There is nothing to roll back to.
    """
    progress, policy = loop.progress, loop.settings.on_nan
    progress.bad += 1
    progress.skipped += 1
    cause = diagnose(loop.gradients, batch)
    what = f"Step {progress.step + 1}: loss {gradients.loss}, gradient norm {gradients.norm}: {cause}."
    loop.record({"kind": "bad", "step": progress.step + 1, "cause": what})
    if policy == "stop" or progress.bad > loop.settings.max_bad_steps:
        raise TrainingDiverged(
            f"{what} The last good checkpoint is in {loop.run.checkpoints}. Lower optimizer.lr or "
            "train.clip_norm in a new run, or go on with --on-nan skip or --on-nan rollback."
        )
    loop.say(f"{what} {'Skipping it' if policy == 'skip' else 'Rolling back'}.")
    if policy == "rollback":
        _roll_back(loop)
    else:
        _mend_buffers(loop)


def _roll_back(loop: Loop) -> None:
    """Takes weights, optimizer and averages from a checkpoint; the data goes on from here.

    From the newest one first; from the one before it if that leads to another bad update at once, since
    its weights may have been spoilt already.
    """
    found = load_newest(loop.run.checkpoints, loop.say, back=loop.progress.bad - 1)
    if found is None:
        raise CheckpointError("There is no checkpoint to roll back to; start the training again.")
    loop.load_tensors(found[1])


@torch.no_grad()
def _mend_buffers(loop: Loop) -> None:
    """Running statistics that the bad batch spoilt are taken from the averaged copy."""
    sound = dict(loop.ema.flow.named_buffers())
    for name, buffer in loop.flow.named_buffers():
        if buffer.is_floating_point() and not bool(buffer.isfinite().all()):
            buffer.copy_(sound[name])
