"""The way of a batch through bijectors one after the other, which join where they can."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.coupling import Coupling, is_by_halves
from flowzoo.bijectors.overrides import is_called, maps_are
from flowzoo.bijectors.rows import Row, Step
from flowzoo.bijectors.turns import Turns, take_turns
from flowzoo.nets.caching import watched
from flowzoo.nets.rectified import computed_in

LONGEST = 8
"""Steps of a row whose activations are stored: they are let go together, behind the gradients of all its weights."""

Part = Bijector | Turns | Row


def through(
    parts: Iterable[Part], x: Tensor, context: Tensor | None, *, inverse: bool = False
) -> tuple[Tensor, list[Tensor], list[Part]]:
    """Maps a batch by bijectors one after the other: in rows where they come to steps, else by turns, else by calls.

    Args:
        parts: The bijectors, in the order in which they are applied, or what an earlier call returned for them.
        x: ``(B, ...)``.
        context: What conditional bijectors are conditioned on.
        inverse: Whether to apply their inverses.

    Returns:
        The result, the log-determinants ``(B,)``, and the parts: bijectors, and what others have joined to.
    """
    left = deque(parts)
    terms: list[Tensor] = []
    used: list[Part] = []
    apart = context is not None or computed_in(x) != x.dtype or torch.compiler.is_compiling() or watched(())
    while left:
        part = left.popleft()
        if isinstance(part, Bijector) and not apart:
            part = _joined(part, left, x, inverse)
        if isinstance(part, Bijector):
            x, term = part.inverse(x, context) if inverse else part(x, context)
            terms.append(term)
        elif isinstance(part, Turns):
            x, found = part.run(x, inverse=inverse)
            terms += found
        else:
            x, term = part.run(x)
            terms.append(term)
        used.append(part)
    return x, terms, used


def marks(bijectors: Iterable[Bijector]) -> list[object]:
    """Objects of which each is the same one as long as what :func:`through` returned for these bijectors holds.

    They are what no tensor tells of them: settings, and whether someone wants them to be called.
    """
    found: list[object] = []
    for bijector in bijectors:
        found += (is_called(bijector), *bijector.settings())
    return found


def _joined(first: Bijector, left: deque[Part], like: Tensor, inverse: bool) -> Part:
    """What ``first`` and those behind it join to for batches like this one; takes them."""
    longest = LONGEST if torch.is_grad_enabled() else len(left) + 1
    row = []
    step = _step(first, like, inverse)
    while step is not None:
        row.append(step)
        behind = left[0] if left and len(row) < longest else None
        step = _step(behind, like, inverse) if isinstance(behind, Bijector) else None
        if step is not None:
            left.popleft()
    if row:
        return Row(row, inverse)
    turns: list[Coupling] = []
    behind = first
    while isinstance(behind, Coupling) and is_by_halves(behind):
        if turns and not (take_turns(turns[-1], behind) and _step(behind, like, inverse) is None):
            break
        turns.append(behind)
        behind = left[len(turns) - 1] if len(left) >= len(turns) else None
    if len(turns) < 2:
        return first
    for _ in turns[1:]:
        left.popleft()
    return Turns(turns)


def _step(bijector: Bijector, like: Tensor, inverse: bool) -> Step | None:
    kind: Any = type(bijector)
    owner = _owner_of_step(kind)
    if owner is Bijector or is_called(bijector) or not maps_are(kind, owner):
        return None
    return bijector.step(like, inverse)


@cache
def _owner_of_step(kind: Any) -> Any:
    """The class whose step a class has."""
    return next(base for base in kind.__mro__ if "step" in vars(base))
