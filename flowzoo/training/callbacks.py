"""Code of the user that a training calls: after an update, after a validation, with each row of metrics, at the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flowzoo.errors import CallbackError, InputError
from flowzoo.registry.isolation import describe
from flowzoo.training.run_dir import COUNTED, FIGURES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flowzoo.evaluation.metrics import Mean
    from flowzoo.flow import Flow
    from flowzoo.training.loop import Loop
    from flowzoo.training.recipe import Recipe
    from flowzoo.training.step import Gradients

__all__ = ["Callback", "Callbacks", "Training"]

HOOKS = ("on_start", "on_step", "on_validation", "on_row", "on_end")
"""The methods that a callback may have."""

RESERVED = {"kind", "state", "best", "skipped", "pause", "cause", *COUNTED, *FIGURES}
"""Names in a row of metrics that a training writes itself."""


class Training:
    """A training as callbacks see it, between two updates.

    Draws from torch's generators, and ``flow.eval()``, do no harm: each update seeds and sets the mode anew. Weights
    that a callback changes are trained on, and resuming knows nothing of the change.

    Attributes:
        gradients: Loss and gradient norm of the newest update; None before the first.
        validation: The newest validation of this session: mean, standard error, number; None before the first.
        state: How the training ended, in ``on_end``; empty before.
        stop_reason: What :meth:`stop` was called with; None if it was not.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._scalars: dict[str, float] = {}
        self.gradients: Gradients | None = None
        self.validation: Mean | None = None
        self.state = ""
        self.stop_reason: str | None = None

    @property
    def flow(self) -> Flow:
        """The model that is trained, in train mode."""
        return self._loop.flow

    @property
    def average(self) -> Flow:
        """The averaged weights in eval mode: what is validated, sampled and exported."""
        return self._loop.ema.ready()

    @property
    def recipe(self) -> Recipe:
        """What is trained."""
        return self._loop.recipe

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self._loop.run.path

    @property
    def step(self) -> int:
        """Updates done."""
        return self._loop.progress.step

    @property
    def total_steps(self) -> int:
        """Updates of the whole training."""
        return self._loop.total

    @property
    def images(self) -> int:
        """Images or vectors seen."""
        return self._loop.progress.images

    @property
    def lr(self) -> float:
        """Learning rate of the newest update, of the first group of parameters."""
        return float(self._loop.optimizer.param_groups[0]["lr"])

    @property
    def loss(self) -> float:
        """Loss of the newest update; NaN before the first."""
        return math.nan if self.gradients is None else self.gradients.loss

    @property
    def unit(self) -> str:
        """Unit of validations: ``"bits/dim"`` or ``"nats/dim"``."""
        return self.flow.unit

    @property
    def best(self) -> float | None:
        """Best validation so far; None before the first."""
        return self._loop.progress.best_bpd

    def log(self, **scalars: float) -> None:
        """Adds numbers to ``metrics.jsonl``, in a row of kind ``scalars`` with the step; loggers get it too.

        Args:
            **scalars: Numbers, or tensors of one. NaN and infinity are written as null.

        Raises:
            InputError: A name is one that a training writes itself, or a value is no number.
        """
        for name, value in scalars.items():
            if name in RESERVED:
                raise InputError(f"log got {name!r}, a name that the training writes itself; choose another.")
            try:
                self._scalars[name] = float(value)
            except (TypeError, ValueError) as error:
                raise InputError(f"log got {name} = {value!r}; expected a number.") from error

    def stop(self, reason: str = "") -> None:
        """Ends the training before its next update, with checkpoint, validation and last weights."""
        self.stop_reason = reason or "a callback asked"

    def take_scalars(self) -> dict[str, float]:
        """The numbers that were logged since the last call."""
        taken, self._scalars = self._scalars, {}
        return taken


class Callback:
    """Base of callbacks, for those who want one: every method does nothing.

    Any object with one of these methods will do. With several processes, callbacks run in process 0 alone.
    """

    def on_start(self, training: Training) -> None:
        """Called once a session, before the first update."""

    def on_step(self, training: Training) -> None:
        """Called after every update, and after the validation that may belong to it."""

    def on_validation(self, training: Training) -> None:
        """Called after every validation: ``training.validation`` is its mean and standard error."""

    def on_row(self, row: dict[str, Any]) -> None:
        """Called with every row of ``metrics.jsonl`` once it is written; for loggers."""

    def on_end(self, training: Training) -> None:
        """Called when the training ends without an error: ``training.state`` says how."""

    def close(self) -> None:
        """Called last, however the training ends."""


class Callbacks:
    """The callbacks of a training.

    Args:
        callbacks: Objects with some of the methods of :class:`Callback`.

    Raises:
        InputError: One has none of them, or a method of a similar name that would never be called.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = tuple(callbacks)
        self._rows: list[dict[str, Any]] = []
        for number, callback in enumerate(self._callbacks):
            unknown = [name for name in dir(callback) if name.startswith("on_") and name not in HOOKS]
            has_one = any(callable(getattr(callback, name, None)) for name in HOOKS)
            if isinstance(callback, type) or unknown or not has_one:
                kind = callback.__name__ if isinstance(callback, type) else type(callback).__name__
                what = "the class" if isinstance(callback, type) else "a"
                detail = f" with {', '.join(unknown)}" if unknown else ""
                raise InputError(
                    f"callbacks[{number}] is {what} {kind}{detail}; expected an object with some of the methods "
                    f"{', '.join(HOOKS)}, and no other on_ methods."
                )

    def start(self, loop: Loop) -> None:
        """Begins a session: from now on there is a training to be called with."""
        self.training, self._loop = Training(loop), loop
        self.call("on_start")

    def seen(self, gradients: Gradients) -> None:
        """Notes the figures of an update."""
        self.training.gradients = gradients

    def validated(self, mean: Mean, *, pause: bool) -> None:
        """Notes a validation, and calls ``on_validation``; what is logged in a pause is forgotten with it."""
        self.training.validation = mean
        self.call("on_validation", {"pause": True} if pause else {})

    def finish(self, state: str) -> None:
        """Notes how the training ended, hands out the last rows, and calls ``on_end``."""
        self.training.state = state
        self.deliver_rows()
        self.call("on_end")
        self.deliver_rows()

    @property
    def stop_reason(self) -> str | None:
        """The reason for which a callback has asked to stop, if one has."""
        return self.training.stop_reason

    def add_row(self, row: dict[str, Any]) -> None:
        """Keeps a row for :meth:`deliver_rows`: a logger that fails must not leave a step half done."""
        if self._callbacks:
            self._rows.append(row)

    def deliver_rows(self) -> None:
        """Hands the rows that were written to the callbacks."""
        while self._rows:
            row = self._rows.pop(0)
            self._each("on_row", dict(row))

    def call(self, hook: str, marks: Mapping[str, Any] | None = None) -> None:
        """Calls a method of every callback, and writes down what they logged, with some marks.

        Raises:
            CallbackError: One failed; a checkpoint has been written.
        """
        if not self._callbacks:
            return
        self._each(hook, self.training)
        flow = self._loop.flow
        if not flow.training:
            flow.train()
        if scalars := self.training.take_scalars():
            progress = self._loop.progress
            row = {"kind": "scalars", "step": progress.step, "images": progress.images, **(marks or {})}
            self._loop.record(row | scalars)

    def _each(self, hook: str, argument: Any) -> None:
        for callback in self._callbacks:
            method = getattr(callback, hook, None)
            if method is None:
                continue
            try:
                method(argument)
            except Exception as error:
                self._rows.clear()
                self._loop.save()
                raise CallbackError(
                    f"The callback {type(callback).__name__} failed in {hook} at step {self.training.step}: "
                    f"{describe(error)} A checkpoint of this step is in {self._loop.run.checkpoints}: mend the "
                    "callback and go on with the run."
                ) from error

    def close(self) -> None:
        """Lets every callback close what it has opened; one that fails does not keep the others from it."""
        for callback in self._callbacks:
            try:
                getattr(callback, "close", lambda: None)()
            except Exception as error:  # noqa: BLE001 - the others have something to close as well
                self._loop.say(f"The callback {type(callback).__name__} failed in close: {describe(error)}")
