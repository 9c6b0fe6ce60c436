"""Everything that a recipe names: found before a training begins, and written down with its distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowzoo.data.augment import find_augmentation, parse_augmentations
from flowzoo.training.objectives import find_objective
from flowzoo.training.optim import check_optimizer
from flowzoo.training.schedules import find_schedule

if TYPE_CHECKING:
    from flowzoo.training.objectives import Objective
    from flowzoo.training.recipe import Recipe

__all__ = ["used_by"]


def used_by(recipe: Recipe, objective: Objective | None = None) -> list[dict[str, str]]:
    """Kind, name, distribution and version of what a recipe names: optimizer, schedules, augmentations, objective.

    What flowzoo computes itself is left out; its version is recorded anyway.

    Args:
        recipe: The recipe.
        objective: A function that was given by the program instead of a name.

    Raises:
        ConfigError: A name or an argument is unknown.
        PluginError: A distribution that provides one is broken.
    """
    found: list[Any] = [check_optimizer(recipe.optimizer, recipe.train.groups)]
    found += [find_schedule(segment) for segment in recipe.schedule]
    found += [find_augmentation(name) for name in parse_augmentations(recipe.data.augment)]
    found.append(find_objective(recipe.train.objective, objective))
    origins: list[dict[str, str]] = []
    for extension in found:
        if extension is None or not extension.distribution:  # a program's own function has none
            continue
        if extension.origin() not in origins:
            origins.append(extension.origin())
    return origins
