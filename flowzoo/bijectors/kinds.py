"""The kind of map a bijector is: how good its log-determinant is, and how each direction is computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal, TypeVar, get_args

from flowzoo.errors import ConfigError

Word = TypeVar("Word", bound=str)

LogDetKind = Literal["exact", "unbiased", "biased"]
"""A log-determinant that is computed, estimated without bias, or estimated with a bias; each weaker than the last."""

DirectionKind = Literal["analytic", "sequential", "numeric"]
"""A direction in closed form, in closed form one element after the other, or by solving an equation to a tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapKind:
    """How a bijector is computed; a chain is as weak as the weakest of its parts.

    Attributes:
        log_det: ``"exact"``, ``"unbiased"`` (its mean over random probes is exact) or ``"biased"``.
        forward: The direction of density evaluation: ``"analytic"``, ``"sequential"`` or ``"numeric"``.
        inverse: The direction of sampling.
        forward_passes: How often a network inside is evaluated, one evaluation after the other, for a density.
        inverse_passes: How often for a sample.
        tolerance: Largest residual that a numeric direction accepts, in units of its output; None if there is none.
    """

    log_det: LogDetKind = "exact"
    forward: DirectionKind = "analytic"
    inverse: DirectionKind = "analytic"
    forward_passes: int = 1
    inverse_passes: int = 1
    tolerance: float | None = None

    def __post_init__(self) -> None:
        """Refuses words that are no kind.

        Raises:
            ConfigError: A field has none of its values.
        """
        for name, choices in (
            ("log_det", LogDetKind),
            ("forward", DirectionKind),
            ("inverse", DirectionKind),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(
                    f"MapKind.{name} is {getattr(self, name)!r}; choose one of {', '.join(get_args(choices))}."
                )
        if min(self.forward_passes, self.inverse_passes) < 1:
            raise ConfigError(
                f"MapKind has {self.forward_passes} forward and {self.inverse_passes} inverse passes; "
                "expected at least 1 of each."
            )

    def reversed(self) -> MapKind:
        """The kind of the same map run backwards."""
        return MapKind(
            log_det=self.log_det,
            forward=self.inverse,
            inverse=self.forward,
            forward_passes=self.inverse_passes,
            inverse_passes=self.forward_passes,
            tolerance=self.tolerance,
        )

    def joined(self, other: MapKind) -> MapKind:
        """The kind of two maps one after the other."""
        return MapKind(
            log_det=_weaker(LogDetKind, self.log_det, other.log_det),
            forward=_weaker(DirectionKind, self.forward, other.forward),
            inverse=_weaker(DirectionKind, self.inverse, other.inverse),
            forward_passes=max(self.forward_passes, other.forward_passes),
            inverse_passes=max(self.inverse_passes, other.inverse_passes),
            tolerance=max(filter(None, (self.tolerance, other.tolerance)), default=None),
        )


EXACT = MapKind()
"""The kind of most bijectors: exact, in closed form and one pass in both directions."""


def weakest(kinds: Iterable[MapKind]) -> MapKind:
    """The kind of maps one after the other."""
    return reduce(MapKind.joined, kinds, EXACT)


def _weaker(words: object, one: Word, other: Word) -> Word:
    return max(one, other, key=get_args(words).index)
