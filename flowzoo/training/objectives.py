"""The loss of an update: the negative log-likelihood, or one of the user's own.

An objective is a function of (flow, log_prob, x, noise, y) that gives a loss for each item, ``(B,)``. It calls
``log_prob(x, noise, y)``, which gives ``(B,)`` nats and is the flow as it is trained: compiled, or joined with other
processes; ``flow`` is the model itself, for everything else, such as ``flow.per_dim``. It is given by name, from the
entry points ``flowzoo.objectives``, or as a function to :func:`flowzoo.train`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from flowzoo.errors import ConfigError, InputError
from flowzoo.registry.extensions import Extension, find_extension

if TYPE_CHECKING:
    from flowzoo.flow import Flow
    from flowzoo.training.recipe import Recipe

__all__ = [
    "GROUP",
    "Objective",
    "find_objective",
    "name_of",
    "negative_log_likelihood",
    "require_losses",
    "with_objective",
]

LogProb = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
Objective = Callable[["Flow", LogProb, Tensor, Tensor, "Tensor | None"], Tensor]

GROUP = "flowzoo.objectives"

_PROGRAM = "python:"
"""Begins the recorded name of a function that a program gave."""


def negative_log_likelihood(
    flow: Flow, log_prob: LogProb, x: Tensor, noise: Tensor, y: Tensor | None
) -> Tensor:
    """-log2 P(x) / D of images, or -log p(x) / D of a density, ``(B,)``; with labels, of x given y."""
    return flow.per_dim(log_prob(x, noise, y))


def name_of(objective: Objective) -> str:
    """The name that a run records for a function: its module and qualified name."""
    kind = objective if hasattr(objective, "__qualname__") else type(objective)
    return f"{_PROGRAM}{getattr(kind, '__module__', '?')}.{getattr(kind, '__qualname__', '?')}"


def find_objective(name: str, given: Objective | None = None) -> Extension | None:
    """The objective that a recipe names; None for the likelihood.

    Args:
        name: ``train.objective``.
        given: The function, if a program gave it.

    Raises:
        ConfigError: It is unknown, or a function of a program that was not given.
        PluginError: Its distribution is broken.
    """
    if given is not None:
        return Extension(group=GROUP, name=name, value=given, distribution="", version="")
    if name.startswith(_PROGRAM):
        raise ConfigError(
            f"train.objective is {name.removeprefix(_PROGRAM)}, a function of the program that started the run; go on "
            "with it from there: flowzoo.train(..., objective=...)."
        )
    return find_extension(GROUP, name, (), "recipe: train.objective") if name else None


def with_objective(recipe: Recipe, objective: Objective | None) -> Recipe:
    """The recipe with the name of a function that a program gave.

    Raises:
        InputError: The recipe names another.
    """
    if objective is None:
        return recipe
    name = name_of(objective)
    if recipe.train.objective not in ("", name):
        raise InputError(
            f"objective is given, and the recipe names {recipe.train.objective!r}; give one of them."
        )
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, objective=name))


def require_losses(losses: object, count: int, name: str) -> Tensor:
    """Returns an objective's losses ``(B,)``.

    Raises:
        InputError: It gave something else.
    """
    if not isinstance(losses, Tensor) or losses.shape != (count,):
        got = f"a tensor {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise InputError(f"The objective {name} gave {got}; expected one loss for each item, ({count},).")
    return losses
