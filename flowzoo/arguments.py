"""Checks of the arguments that a flow's methods take."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor

from flowzoo.errors import InputError

MAX_DRAWS = 1_000_000
"""Most noise samples or probes of an item: each is a pass through the model, and more would never end."""


def require_count(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Raises an InputError unless an argument is a whole number of at least ``least``, and at most ``most``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InputError(f"{name} is {value!r}; expected a whole number of at least {least}.")
    if most is not None and int(value) > most:
        raise InputError(f"{name} is more than {most}; expected at most that.")


def require_generator(generator: object) -> None:
    """Raises an InputError unless this is a generator or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator is {generator!r}; expected None or a torch.Generator, as torch.Generator().manual_seed(0)."
        )


def generator_of(generator: torch.Generator | None, seed: int | None) -> torch.Generator | None:
    """The generator, or one of this seed."""
    require_generator(generator)
    if seed is None:
        return generator
    if generator is not None:
        raise InputError("both generator and seed are given; expected one of them.")
    require_count("seed", seed, least=0)
    if seed >= 2**63:
        raise InputError(f"seed is {seed!r}; expected a whole number from 0 to 2^63 - 1.")
    return torch.Generator().manual_seed(int(seed))


def is_temperature(temperature: object) -> bool:
    """Whether this is a finite number of at least 0."""
    known = isinstance(temperature, int | float | Integral) and not isinstance(temperature, bool)
    return known and 0 <= float(temperature) < math.inf  # type: ignore[arg-type]


def describe(value: object) -> str:
    """A value in an error message: dtype and shape of a tensor, the type of anything else."""
    if not isinstance(value, Tensor):
        hint = " (torch.from_numpy makes a tensor of an array)" if type(value).__module__ == "numpy" else ""
        return f"a {type(value).__name__}{hint}"
    return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"


def few(numbers: list[int]) -> str:
    """The first of some numbers."""
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
