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
from flowzoo.errors import CheckpointError
from flowzoo.evaluation.noise import training_noise
from flowzoo.evaluation.progress import Bar
from flowzoo.training.bad_updates import handle_bad
from flowzoo.training.callbacks import Callbacks
from flowzoo.training.ema import Ema
from flowzoo.training.optim import build_optimizer, set_lr
from flowzoo.training.optimizer_state import load_optimizer_tensors, optimizer_tensors
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
from flowzoo.training.step import Gradients, gradient_step
from flowzoo.training.validation import figure_column, validate, write_pictures, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from flowzoo.data.images import ImageSet
    from flowzoo.flow import Flow
    from flowzoo.training.interrupt import StopRequest
    from flowzoo.training.objectives import Objective
    from flowzoo.training.opening import Opened
    from flowzoo.training.recipe import Recipe
    from flowzoo.training.run_dir import RunDir


SHARED_STOP_STEPS = 10
"""Updates between two questions of several processes whether to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a session of training.

    Attributes:
        state: ``finished``, ``stopped early`` (no new best), ``stopped`` (a callback asked), ``out of time`` or
            ``interrupted``.
        step: Updates done.
        best: Best validation, in ``unit``; None before the first.
        unit: ``bits/dim``, or ``nats/dim`` of a density.
        best_step: When that was.
        hours: Compute hours over all sessions.
    """

    state: str
    step: int
    best: float | None
    unit: str
    best_step: int | None
    hours: float

    @property
    def best_bpd(self) -> float | None:
        """Best validation in bits per dimension; None before the first, and of a density."""
        return self.best if self.unit == "bits/dim" else None


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
        callbacks: Code of the user; called in process 0.
        objective: The loss of an item, if it is no name that the recipe has.
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
        callbacks: Callbacks | None = None,
        objective: Objective | None = None,
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
        self.callbacks = callbacks if callbacks is not None and where.main else Callbacks(())
        self.objective = objective
        self.speed = "-"

    @property
    def conditional(self) -> bool:
        """Whether the labels of the data are conditioned on."""
        return self.recipe.data.labels

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
        self.optimizer = build_optimizer(self.recipe.optimizer, self.flow, self.settings.groups)
        self.ema = Ema(self.flow, self.settings.ema)
        if found is not None:
            self.progress, tensors = found
            self.load_tensors(tensors)
            self.batches.restore(self.progress.position)
            if self.where.main:
                spent = self.run.rewind(self.progress.step)
                self.progress.seconds = max(self.progress.seconds, spent)
            self.say(f"Resuming at step {self.progress.step} of {self.total}.")
        dtype = torch.bfloat16 if self.settings.precision == "bfloat16" else None
        self.flow.set_network_dtype(dtype)
        self.flow.set_memory(self.settings.memory)
        self.flow.train()
        self.gradients = gradient_step(self.flow, self.recipe, self.where, self.objective)

    def _initialize(self) -> None:
        """Data-dependent initialisation on one full batch, the same in all processes."""
        settings = self.settings
        count = min(settings.init_images, len(self.train_set))
        stride = max(1, len(self.train_set) // count)
        chosen = torch.arange(count) * stride
        images = self.train_set.batch(chosen).to(self.where.device)
        y = self.train_set.needed_labels()[chosen].to(self.where.device) if self.conditional else None
        noise = training_noise(
            self.flow.noise_kind, tuple(images.shape), settings.seed, -1, self.where.device
        )
        torch.manual_seed(settings.seed)
        self.flow.initialize(images, y, noise=noise)
        broadcast_state(self.flow, self.where)

    def execute(
        self, request: StopRequest, max_seconds: float | None, stop_after: int | None = None
    ) -> Outcome:
        """Trains to the end, or until asked to stop, such as after so many updates.

        Raises:
            TrainingDiverged: An update was not finite, and the recipe says to stop.
            CheckpointError: The disk refuses.
        """
        progress, settings = self.progress, self.settings
        limit = self.total if stop_after is None else min(self.total, stop_after)
        began = self.saved_at = self.clock = time.monotonic()
        if progress.step == 0 and not list_checkpoints(self.run.checkpoints):
            self.save()
        self.bar = Bar(self.total, progress.step, shown=self.show_bar)
        state = "finished"
        try:
            self.callbacks.start(self)
            while progress.step < limit:
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
                self.callbacks.call("on_step")
                self.callbacks.deliver_rows()
                if self._checkpoint_due():
                    self.save()
            if state == "finished" and progress.step < self.total:
                reason = f"after {progress.step:,} updates, as asked"
                return self._finish("stopped", reason, "without stop_after, the same command")
            return self._finish(state, self.callbacks.stop_reason if state == "stopped" else None)
        finally:
            self.callbacks.close()
            self.bar.close()
            self.batches.close()

    def _asked_to_stop(self, request: StopRequest, began: float, max_seconds: float | None) -> str:
        late = max_seconds is not None and time.monotonic() - began >= max_seconds
        stopped = self.callbacks.stop_reason is not None
        state = 3 if request.signal is not None else 2 if stopped else 1 if late else 0
        # Clocks and signals differ between processes; the decision must not. Asking waits for all of them.
        if self.where.size > 1 and self.progress.step % SHARED_STOP_STEPS:
            return ""
        return ("", "out of time", "stopped", "interrupted")[largest(state, self.where)]

    def _finish(self, state: str, reason: str | None = None, again: str = "the same command") -> Outcome:
        progress = self.progress
        if state in ("finished", "stopped early", "stopped") and self.where.main:
            best = progress.best_bpd if progress.best_bpd is not None else 0.0
            write_weights(self.ema.ready(), self.recipe, self.run.last, step=progress.step, best=best)
        self._tick()
        self.save()
        found = progress.best_bpd, progress.best_step
        if state in ("out of time", "stopped") and progress.step % self.settings.validate_every:
            found = self._validate_pause()
        row = {"kind": "end", "step": progress.step, "state": state, "seconds": progress.seconds}
        self.record(row | {"images": progress.images} | ({"reason": reason} if reason else {}))
        if state not in ("finished", "stopped early"):
            why = f" ({reason})" if reason else ""
            self.say(f"Stopped at step {progress.step}{why} with a checkpoint; {again} goes on from there.")
        self.callbacks.finish(state)
        return Outcome(
            state=state,
            step=progress.step,
            best=found[0],
            unit=self.flow.unit,
            best_step=found[1],
            hours=progress.seconds / 3600,
        )

    def update(self) -> None:
        """One update, or the decision what to do instead."""
        progress = self.progress
        batch = next(self.batches)
        total = next((steps for until, steps in self.stages if progress.step < until), self.total)
        set_lr(self.optimizer, lr_factor(self.recipe.schedule, progress.step, total))
        began = time.monotonic()
        gradients = self.gradients(batch)
        self.callbacks.seen(gradients)
        if gradients.finite:
            self.optimizer.step()
            self.ema.update(progress.step)
            progress.bad = 0
            self._count(gradients)
        else:
            handle_bad(self, gradients, batch)
        progress.step += 1
        progress.images += self.settings.batch_size
        progress.window.seconds += time.monotonic() - began
        lr = self.optimizer.param_groups[0]["lr"]
        self.bar.advance(1, loss=f"{gradients.loss:.4f}", lr=f"{lr:.2e}", per_s=self._speed())
        self._tick()

    def _count(self, gradients: Gradients) -> None:
        window = self.progress.window
        window.updates += 1
        window.loss += gradients.loss
        window.norm += gradients.norm
        window.clipped += gradients.clipped

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
        self.record(row)
        progress.window = Window()

    def _validate_pause(self) -> tuple[float | None, int | None]:
        """Validates after the checkpoint, which does not know: resuming goes on as if there had been no pause.

        Returns:
            Best figure and its step, this validation included.
        """
        if self.where.main and self.run.best.is_file() and self.progress.best_bpd is not None:
            write_chunks(self.run.regular, [self.run.best.read_bytes()])
        self.validate(pause=True)
        return self.progress.best_bpd, self.progress.best_step

    def validate(self, *, pause: bool = False) -> None:
        """Measures the averaged weights on held-out images; keeps the best; draws."""
        progress, flow = self.progress, self.ema.ready()
        mean = validate(flow, self.valid_set, self.where, labels=self.conditional)
        better = math.isfinite(mean.value) and (progress.best_bpd is None or mean.value < progress.best_bpd)
        if better:
            progress.best_bpd, progress.best_step, progress.stale = mean.value, progress.step, 0
        else:
            progress.stale += 1
        self._tick()
        column = figure_column(flow)
        row = {"kind": "valid", "step": progress.step, column: mean.value, "stderr": mean.stderr}
        row |= {"pause": True} if pause else {}
        seconds = round(progress.seconds, 3)
        self.record(row | {"best": better, "images": progress.images, "seconds": seconds})
        hours = progress.seconds / 3600
        self.say(
            f"step {progress.step}/{self.total}: validation {mean.value:.4f} +- {mean.stderr:.4f} {flow.unit}"
            f"{' (best)' if better else ''}, {hours:.2f} h, {self._speed()} {flow.data_kind}/s"
        )
        if self.where.main:
            if better:
                write_weights(flow, self.recipe, self.run.best, step=progress.step, best=mean.value)
            trouble = write_pictures(flow, self.recipe, self.run, progress.step, self.valid_set)
            if trouble:
                self.record({"kind": "pictures", "step": progress.step, "cause": trouble})
        barrier(self.where)
        self.callbacks.validated(mean, pause=pause)

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

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Puts back weights, averages and the optimizer's state from a checkpoint's tensors.

        Raises:
            CheckpointError: They are those of another model.
        """
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

    def record(self, row: dict[str, Any]) -> None:
        """Writes a row of metrics, which callbacks get once the step is done."""
        if self.where.main:
            self.run.append(row)
            self.callbacks.add_row(row)


def _silent(text: str) -> None:
    """Other processes than 0 say nothing."""
