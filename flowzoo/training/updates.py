"""The part of a recipe that says how weights move: optimizer, groups of parameters, schedule. Torch-free.

Arguments that only some optimizers or schedules have stand in the same table as the rest: what no field of ours is
called goes into ``arguments``, and is checked against the optimizer or schedule itself when a training is prepared.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowzoo.config import extension
from flowzoo.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_STEPS = 999_999_999
"""Updates of the longest training: checkpoints are numbered with nine digits."""

MAX_RATE = 1000.0
"""The largest rate or factor: beyond, float32 weights overflow within a few updates."""

OWN_OPTIMIZERS = ("adam", "adamw", "adamax")
"""Optimizers whose arguments are fields of :class:`Optimizer`."""

OWN_SCHEDULES = ("constant", "linear", "cosine", "exponential")
"""Kinds of segments that flowzoo computes itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """The update rule.

    Attributes:
        name: A class of ``torch.optim``, such as ``adam`` (weight decay as L2 penalty), ``adamw`` (decoupled), ``SGD``
            or ``RAdam``, in any case of letters; ``muon-adam``, Muon for matrices and kernels and Adam for the rest; or
            an entry point of ``flowzoo.optimizers``.
        lr: Learning rate; the schedule multiplies it.
        betas: Decay rates of the first and second moment, of ``adam``, ``adamw`` and ``adamax``.
        eps: Added to the denominator, of the same.
        weight_decay: Strength of the weight decay.
        decay_names: Regular expression; only parameters whose name it matches decay. Empty for all.
        arguments: Whatever else the optimizer takes, such as ``momentum``; written as keys beside the others.
    """

    name: str = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay_names: str = ""
    arguments: Any = extension(None)  # noqa: RUF009 - a field, made by a function

    def __post_init__(self) -> None:
        require(bool(self.name), "optimizer.name", self.name, "a name, such as adam")
        require(0 < self.lr <= MAX_RATE, "optimizer.lr", self.lr, f"a positive number, at most {MAX_RATE:g}")
        require(0 < self.eps <= 1, "optimizer.eps", self.eps, "a positive number, at most 1")
        decay = self.weight_decay
        require(0 <= decay <= MAX_RATE, "optimizer.weight_decay", decay, f"a number from 0 to {MAX_RATE:g}")
        for beta in self.betas:
            require(0 <= beta < 1, "optimizer.betas", self.betas, "two numbers from 0 up to 1")
        good = self.arguments is None or isinstance(self.arguments, dict)
        require(good, "optimizer.arguments", self.arguments, "a table")

    @property
    def own(self) -> bool:
        """Whether betas and eps are arguments of this optimizer."""
        return self.name in OWN_OPTIMIZERS

    @property
    def others(self) -> dict[str, Any]:
        """The arguments that are no fields."""
        return self.arguments or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of the learning-rate schedule, in factors of the optimizer's rate.

    Attributes:
        kind: ``constant`` (start), ``linear`` (start to end, reached at the last step), ``cosine``
            (half a wave from start to end), ``exponential`` (start, times rate for every ``every``
            steps, not below ``floor``), or an entry point of ``flowzoo.schedules``.
        steps: Length; None, in the last segment only, means to the end of training.
        start: Factor at the beginning: 1, or 0 for ``linear``.
        end: Factor at the end: 1 for ``linear``, 0 for ``cosine``.
        rate: Decay of an exponential.
        every: Steps in which an exponential decays by ``rate`` once.
        floor: Smallest factor of an exponential.
        arguments: Arguments of an entry point; written as keys beside the others.
    """

    kind: str
    steps: int | None = None
    start: float | None = None
    end: float | None = None
    rate: float = 1.0
    every: int = 1
    floor: float = 0.0
    arguments: Any = extension(None)  # noqa: RUF009 - a field, made by a function

    def __post_init__(self) -> None:
        steps = self.steps
        require(steps is None or 0 < steps <= MAX_STEPS, "schedule.steps", steps, f"1 to {MAX_STEPS}")
        for key in ("start", "end", "floor"):
            factor = getattr(self, key)
            good = factor is None or 0 <= factor <= MAX_RATE
            require(good, f"schedule.{key}", factor, f"a factor from 0 to {MAX_RATE:g}")
        require(0 < self.rate <= 1, "schedule.rate", self.rate, "a positive number, at most 1")
        require(self.every > 0, "schedule.every", self.every, "a positive number")
        foreign = self.kind not in OWN_SCHEDULES
        good = self.arguments is None or (foreign and isinstance(self.arguments, dict))
        require(good, "schedule.arguments", self.arguments, "a table, for a schedule of a plugin only")


def gather_arguments(tree: dict[str, Any]) -> None:
    """Moves the keys of optimizer and schedule that are no fields of ours into ``arguments``, in place."""
    optimizer = tree.get("optimizer")
    if isinstance(optimizer, dict):
        name = optimizer.get("name", "adam")
        lower = name.lower() if isinstance(name, str) else ""
        fields = {f.name for f in dataclasses.fields(Optimizer)}
        if lower in OWN_OPTIMIZERS:
            optimizer["name"] = lower
        else:
            fields -= {"betas", "eps"}
        _gather(optimizer, fields)
    segments = tree.get("schedule")
    for segment in segments if isinstance(segments, list) else ():
        # A key that a built-in kind does not know stays where it is, and is reported as unknown.
        if isinstance(segment, dict) and segment.get("kind", "constant") not in OWN_SCHEDULES:
            _gather(segment, {"kind", "steps", "arguments"})


def _gather(table: dict[str, Any], fields: set[str]) -> None:
    others = {key: table.pop(key) for key in list(table) if key not in fields}
    if others:
        given = table.get("arguments")
        table["arguments"] = (given if isinstance(given, dict) else {}) | others


def spread_arguments(plain: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a recipe with ``arguments`` back in the tables that they were written in."""
    optimizer = dict(plain["optimizer"])
    arguments = optimizer.pop("arguments", {})
    if optimizer["name"] not in OWN_OPTIMIZERS:
        optimizer = {key: value for key, value in optimizer.items() if key not in ("betas", "eps")}
    return plain | {
        "optimizer": optimizer | arguments,
        "schedule": [_spread(segment) for segment in plain["schedule"]],
    }


def _spread(segment: Mapping[str, Any]) -> dict[str, Any]:
    if segment["kind"] in OWN_SCHEDULES:
        return {key: value for key, value in segment.items() if key != "arguments"}
    return {"kind": segment["kind"], "steps": segment["steps"]} | (segment.get("arguments") or {})


def check_groups(groups: tuple[Any, ...], decay_names: str) -> None:
    """Checks the form of ``[[train.groups]]``; which parameters and arguments there are is known later.

    Raises:
        ConfigError: A group has no pattern, or sets nothing, or ``decay_names`` is given as well.
    """
    for number, group in enumerate(groups):
        if not isinstance(group, dict) or not isinstance(group.get("match"), str) or len(group) < 2:
            raise ConfigError(
                f"recipe: train.groups.{number} is {group!r}; expected a table with match, a pattern of parameters' "
                'names such as "*.bias", and what is different for them, such as weight_decay = 0.'
            )
        lr = group.get("lr", 1e-3)
        good = isinstance(lr, int | float) and not isinstance(lr, bool) and 0 <= lr <= MAX_RATE
        require(good, f"train.groups.{number}.lr", lr, f"a number from 0 to {MAX_RATE:g}")
    if groups and decay_names:
        raise ConfigError("recipe: give either optimizer.decay_names or train.groups, not both.")


def require(good: bool, key: str, value: Any, expected: str) -> None:
    """Raises a ConfigError that says what a key is and what was expected, unless ``good``."""
    if not good:
        raise ConfigError(f"recipe: {key} is {value!r}; expected {expected}.")
