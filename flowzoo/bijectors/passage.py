"""The way of a batch through bijectors one after the other, which join where they can."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.coupling import Coupling
from flowzoo.bijectors.rows import Step, run_row
from flowzoo.bijectors.turns import Turns, take_turns
from flowzoo.nets.caching import watched
from flowzoo.nets.initialization import is_initializing

LONGEST = 8
"""Steps of a row whose activations are stored: they are let go together, behind the gradients of all its weights."""

Part = Bijector | Turns | tuple[Step, ...]


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
    apart = context is not None or is_initializing() or torch.compiler.is_compiling()
    while left:
        part = left.popleft()
        if isinstance(part, Bijector) and not apart:
            part = _joined(part, left, x, inverse)
        if isinstance(part, Bijector):
            x, term = part.inverse(x, context) if inverse else part(x, context)
            terms.append(term)
        elif isinstance(part, Turns):
            x, found = part.run(x, context, inverse=inverse)
            terms += found
        else:
            x, term = run_row(x, part)
            terms.append(term)
        used.append(part)
    return x, terms, used


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
        return tuple(row)
    turns = [first]
    while left and isinstance(behind := left[0], Bijector) and take_turns(turns[-1], behind):
        if any(_is_called(bijector) or bijector.step(like, inverse) for bijector in (turns[-1], behind)):
            break
        turns.append(behind)
        left.popleft()
    couplings = [bijector for bijector in turns if isinstance(bijector, Coupling)]
    return Turns(couplings) if len(couplings) > 1 else first


def _step(bijector: Bijector, like: Tensor, inverse: bool) -> Step | None:
    return None if _is_called(bijector) else bijector.step(like, inverse)


def _is_called(bijector: Bijector) -> bool:
    """Whether someone wants every call of this one."""
    return "forward" in bijector.__dict__ or "inverse" in bijector.__dict__ or watched((bijector,))
