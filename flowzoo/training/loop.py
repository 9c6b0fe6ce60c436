"""The training loop: updates, validations, checkpoints, and every way to stop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from flowzoo.atomic import write_chunks
from flowzoo.data.pipeline import TrainBatches
from flowzoo.distributed import World, barrier, broadcast_state, largest
from flowzoo.errors import CheckpointError, TrainingDiverged
from flowzoo.evaluation.noise import training_noise
from flowzoo.evaluation.progress import Bar
from flowzoo.training.diagnose import diagnose
from flowzoo.training.ema import Ema
from flowzoo.training.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors, set_lr
from flowzoo.training.schedules import lr_factor
from flowzoo.training.state import (
    Progress,
    Window,
    list_checkpoints,
    load_newest,
    prefixed,
    save_checkpoint,
    unprefixed,
)
from flowzoo.training.step import Gradients, GradientStep
from flowzoo.training.validation import validate, write_pictures, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from flowzoo.data.images import ImageSet
    from flowzoo.data.pipeline import Batch
    from flowzoo.flow import Flow
    from flowzoo.training.interrupt import StopRequest
    from flowzoo.training.opening import Opened
    from flowzoo.training.recipe import Recipe
    from flowzoo.training.run_dir import RunDir


SHARED_STOP_STEPS = 10
"""Updates between two questions of several processes whether to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a session of training.

    Attributes:
        state: ``finished``, ``stopped early`` (no new best), ``out of time`` or ``interrupted``.
        step: Updates done.
        best_bpd: Best validation, bits per dimension; None before the first.
        best_step: When that was.
        hours: Compute hours over all sessions.
    """

    state: str
    step: int
    best_bpd: float | None
    best_step: int | None
    hours: float


class Loop:
    """A training in progress.

    Args:
        flow: The model, on its device.
        recipe: What to do.
        run: Where to write.
        images: Images that gradients see, and held-out ones.
        where: This process.
        say: Told, in process 0, what a person should know.
        show_bar: Whether a terminal gets a progress bar.
        resident: Whether the images stay on the device; None decides by their size.
    """

    def __init__(
        self,
        flow: Flow,
        recipe: Recipe,
        run: RunDir,
        images: tuple[ImageSet, ImageSet],
        where: World,
        *,
        say: Callable[[str], None],
        show_bar: bool = True,
        resident: bool | None = None,
    ) -> None:
        self.flow, self.recipe, self.run, self.where = flow, recipe, run, where
        self.train_set, self.valid_set = images
        self.settings = recipe.train
        self.total = self.settings.total_steps(len(self.train_set))
        self.progress = Progress()
        self.say = say if where.main else _silent
        self.show_bar = show_bar and where.main
        self.batches = TrainBatches(
            self.train_set,
            self.settings.batch_size,
            self.settings.seed,
            device=where.device,
            rank=where.rank,
            world_size=where.size,
            augment=recipe.data.augment,
            resident=resident,
        )
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self.speed = "-"

    def prepare(self, opened: Opened) -> None:
        """Resumes from the newest sound checkpoint, or initialises from data.

        Args:
            opened: The recipe as it was decided when the run was opened, and how the run was extended.

        Raises:
            CheckpointError: Checkpoints exist, and none is sound.
        """
        self.recipe, self.settings, self.stages = opened.recipe, opened.recipe.train, opened.stages
        found = load_newest(self.run.checkpoints, self.say)
        if found is None:
            self._initialize()
        self.optimizer = build_optimizer(self.recipe.optimizer, self.flow)
        self.ema = Ema(self.flow, self.settings.ema)
        if found is not None:
            self.progress, tensors = found
            self._load_tensors(tensors)
            self.batches.restore(self.progress.position)
            if self.where.main:
                spent = self.run.rewind(self.progress.step)
                self.progress.seconds = max(self.progress.seconds, spent)
            self.say(f"Resuming at step {self.progress.step} of {self.total}.")
        dtype = torch.bfloat16 if self.settings.precision == "bfloat16" else None
        self.flow.set_network_dtype(dtype)
        self.flow.set_memory(self.settings.memory)
        self.flow.train()
        self.gradients = GradientStep(self.flow, self.settings, self.where)

    def _initialize(self) -> None:
        """Data-dependent initialisation on one full batch, the same in all processes."""
        settings = self.settings
        count = min(settings.init_images, len(self.train_set))
        stride = max(1, len(self.train_set) // count)
        images = self.train_set.batch(torch.arange(count) * stride).to(self.where.device)
        noise = training_noise(
            self.flow.noise_kind, tuple(images.shape), settings.seed, -1, self.where.device
        )
        torch.manual_seed(settings.seed)
        self.flow.initialize(images, noise=noise)
        broadcast_state(self.flow, self.where)

    def execute(self, request: StopRequest, max_seconds: float | None) -> Outcome:
        """Trains to the end, or until asked to stop.

        Raises:
            TrainingDiverged: An update was not finite, and the recipe says to stop.
            CheckpointError: The disk refuses.
        """
        progress, settings = self.progress, self.settings
        began = self.saved_at = self.clock = time.monotonic()
        if progress.step == 0 and not list_checkpoints(self.run.checkpoints):
            self.save()
        self.bar = Bar(self.total, progress.step, shown=self.show_bar)
        state = "finished"
        try:
            while progress.step < self.total:
                if settings.patience is not None and progress.stale >= settings.patience:
                    state = "stopped early"
                    break
                if stop := self._asked_to_stop(request, began, max_seconds):
                    state = stop
                    break
                self.update()
                if progress.step % settings.log_every == 0 or progress.step == self.total:
                    self.log()
                if progress.step % settings.validate_every == 0 or progress.step == self.total:
                    self.validate()
                if self._checkpoint_due():
                    self.save()
            return self._finish(state)
        finally:
            self.bar.close()
            self.batches.close()

    def _asked_to_stop(self, request: StopRequest, began: float, max_seconds: float | None) -> str:
        late = max_seconds is not None and time.monotonic() - began >= max_seconds
        state = 2 if request.signal is not None else 1 if late else 0
        # Clocks and signals differ between processes; the decision must not. Asking waits for all of them.
        if self.where.size > 1 and self.progress.step % SHARED_STOP_STEPS:
            return ""
        return ("", "out of time", "interrupted")[largest(state, self.where)]

    def _finish(self, state: str) -> Outcome:
        progress = self.progress
        done = state in ("finished", "stopped early")
        if done and self.where.main:
            bpd = progress.best_bpd if progress.best_bpd is not None else 0.0
            write_weights(self.ema.ready(), self.recipe, self.run.last, step=progress.step, bpd=bpd)
        self._tick()
        self.save()
        best = progress.best_bpd, progress.best_step
        if state == "out of time" and progress.step % self.settings.validate_every:
            best = self._validate_pause()
        row = {"kind": "end", "step": progress.step, "state": state, "seconds": progress.seconds}
        self._record(row | {"images": progress.images})
        if not done:
            self.say(
                f"Stopped at step {progress.step} with a checkpoint; the same command goes on from there."
            )
        return Outcome(
            state=state,
            step=progress.step,
            best_bpd=best[0],
            best_step=best[1],
            hours=progress.seconds / 3600,
        )

    def update(self) -> None:
        """One update, or the decision what to do instead."""
        progress = self.progress
        batch = next(self.batches)
        total = next((steps for until, steps in self.stages if progress.step < until), self.total)
        lr = self.recipe.optimizer.lr * lr_factor(self.recipe.schedule, progress.step, total)
        set_lr(self.optimizer, lr)
        began = time.monotonic()
        gradients = self.gradients(batch)
        if gradients.finite:
            self.optimizer.step()
            self.ema.update(progress.step)
            progress.bad = 0
            self._count(gradients)
        else:
            self._handle_bad(gradients, batch)
        progress.step += 1
        progress.images += self.settings.batch_size
        progress.window.seconds += time.monotonic() - began
        self.bar.advance(1, bpd=f"{gradients.loss:.4f}", lr=f"{lr:.2e}", img_s=self._speed())
        self._tick()

    def _count(self, gradients: Gradients) -> None:
        window = self.progress.window
        window.updates += 1
        window.loss += gradients.loss
        window.norm += gradients.norm
        window.clipped += gradients.clipped

    def _handle_bad(self, gradients: Gradients, batch: Batch) -> None:
        progress, policy = self.progress, self.settings.on_nan
        progress.bad += 1
        progress.skipped += 1
        cause = diagnose(self.gradients, batch)
        what = f"Step {progress.step + 1}: loss {gradients.loss}, gradient norm {gradients.norm}: {cause}."
        self._record({"kind": "bad", "step": progress.step + 1, "cause": what})
        if policy == "stop" or progress.bad > self.settings.max_bad_steps:
            raise TrainingDiverged(
                f"{what} The last good checkpoint is in {self.run.checkpoints}. Lower optimizer.lr or "
                "train.clip_norm in a new run, or go on with --on-nan skip or --on-nan rollback."
            )
        self.say(f"{what} {'Skipping it' if policy == 'skip' else 'Rolling back'}.")
        if policy == "rollback":
            self._roll_back()
        else:
            self._mend_buffers()

    def _roll_back(self) -> None:
        """Takes weights, optimizer and averages from a checkpoint; the data goes on from here.

        From the newest one first; from the one before it if that leads to another bad update at once, since
        its weights may have been spoilt already.
        """
        found = load_newest(self.run.checkpoints, self.say, back=self.progress.bad - 1)
        if found is None:
            raise CheckpointError("There is no checkpoint to roll back to; start the training again.")
        self._load_tensors(found[1])

    @torch.no_grad()
    def _mend_buffers(self) -> None:
        """Running statistics that the bad batch spoilt are taken from the averaged copy."""
        sound = dict(self.ema.flow.named_buffers())
        for name, buffer in self.flow.named_buffers():
            if buffer.is_floating_point() and not bool(buffer.isfinite().all()):
                buffer.copy_(sound[name])

    def log(self) -> None:
        """Writes the sums since the last row, and starts new ones."""
        progress, window = self.progress, self.progress.window
        count = max(1, window.updates)
        row = {
            "kind": "train",
            "step": progress.step,
            "loss": window.loss / count if window.updates else None,
            "lr": self.optimizer.param_groups[0]["lr"],
            "grad_norm": window.norm / count,
            "clipped": window.clipped / count,
            "images": progress.images,
            "images_per_s": round(window.updates * self.settings.batch_size / max(window.seconds, 1e-9), 2),
            "skipped": progress.skipped,
            "seconds": round(progress.seconds, 3),
        }
        self._record(row)
        progress.window = Window()

    def _validate_pause(self) -> tuple[float | None, int | None]:
        """Validates after the checkpoint, which does not know: resuming goes on as if there had been no pause.

        Returns:
            Best bits per dimension and its step, this validation included.
        """
        if self.where.main and self.run.best.is_file() and self.progress.best_bpd is not None:
            write_chunks(self.run.regular, [self.run.best.read_bytes()])
        self.validate(pause=True)
        return self.progress.best_bpd, self.progress.best_step

    def validate(self, *, pause: bool = False) -> None:
        """Measures the averaged weights on held-out images; keeps the best; draws."""
        progress, flow = self.progress, self.ema.ready()
        mean = validate(flow, self.valid_set, self.where)
        better = math.isfinite(mean.value) and (progress.best_bpd is None or mean.value < progress.best_bpd)
        if better:
            progress.best_bpd, progress.best_step, progress.stale = mean.value, progress.step, 0
        else:
            progress.stale += 1
        self._tick()
        row = {"kind": "valid", "step": progress.step, "bpd": mean.value, "stderr": mean.stderr}
        row |= {"pause": True} if pause else {}
        seconds = round(progress.seconds, 3)
        self._record(row | {"best": better, "images": progress.images, "seconds": seconds})
        hours = progress.seconds / 3600
        self.say(
            f"step {progress.step}/{self.total}: validation {mean.value:.4f} +- {mean.stderr:.4f} bits/dim"
            f"{' (best)' if better else ''}, {hours:.2f} h, {self._speed()} images/s"
        )
        if self.where.main:
            if better:
                write_weights(flow, self.recipe, self.run.best, step=progress.step, bpd=mean.value)
            trouble = write_pictures(flow, self.recipe, self.run, progress.step)
            if trouble:
                self._record({"kind": "pictures", "step": progress.step, "cause": trouble})
        barrier(self.where)

    def save(self) -> None:
        """Writes a checkpoint of everything that decides the future."""
        progress = self.progress
        progress.position = self.batches.state()
        if self.where.main:
            tensors = prefixed("model", self.flow.state_dict()) | prefixed("ema", self.ema.flow.state_dict())
            tensors |= prefixed("optimizer", optimizer_tensors(self.optimizer, self.flow))
            # After a bad update these weights are suspect, so no older checkpoint gives way to them.
            keep = self.settings.keep if progress.bad == 0 else None
            save_checkpoint(self.run.checkpoints, progress, tensors, keep)
        self.saved_at = time.monotonic()

    def _load_tensors(self, tensors: dict[str, Tensor]) -> None:
        try:
            self.flow.load_state_dict(unprefixed("model", tensors))
            self.ema.flow.load_state_dict(unprefixed("ema", tensors))
        except RuntimeError as error:
            raise CheckpointError(f"The checkpoint does not fit the model: {error}") from error
        load_optimizer_tensors(self.optimizer, self.flow, unprefixed("optimizer", tensors))

    def _checkpoint_due(self) -> bool:
        if self.progress.bad:
            return False
        every, step = self.settings.checkpoint_every, self.progress.step
        by_count = every is not None and step % every == 0
        by_clock = time.monotonic() - self.saved_at >= 60 * self.settings.checkpoint_minutes
        return by_count or by_clock

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self.clock
        self.clock = now

    def _speed(self) -> str:
        window = self.progress.window
        if window.seconds:
            self.speed = f"{window.updates * self.settings.batch_size / window.seconds:.0f}"
        return self.speed

    def _record(self, row: dict[str, Any]) -> None:
        if self.where.main:
            self.run.append(row)
            for listener in self.listeners:
                listener(row)


def _silent(text: str) -> None:
    """Other processes than 0 say nothing."""
