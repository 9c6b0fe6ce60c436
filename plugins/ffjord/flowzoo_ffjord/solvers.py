"""Runge-Kutta methods on states of several tensors: a fixed grid, and steps of each item's own.

A state is a tuple of tensors with the batch first; a derivative is a function of (state, t) with times ``(B,)``, or one
time ``()`` for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowzoo.errors import NotConverged

State = tuple[Tensor, ...]
Derivative = Callable[[State, Tensor], State]

# Dormand and Prince (1980): nodes, stages, and the fifth and fourth order's weights.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_FIFTH = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
_FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)


def moved(state: State, h: Tensor, slopes: Sequence[State], weights: Sequence[float]) -> State:
    """State + h sum w k, with steps ``(B,)`` or ``()``."""
    found = []
    for i, part in enumerate(state):
        total = sum(w * k[i] for w, k in zip(weights, slopes, strict=True) if w)
        found.append(part + h.reshape(-1, *(1,) * (part.ndim - 1)) * total)
    return tuple(found)


def rk4_step(derivative: Derivative, state: State, t: Tensor, h: Tensor) -> State:
    """One step of the classical method of order four from times t by h, both ``(B,)`` or ``()``."""
    first = derivative(state, t)
    second = derivative(moved(state, h, [first], [0.5]), t + 0.5 * h)
    third = derivative(moved(state, h, [second], [0.5]), t + 0.5 * h)
    fourth = derivative(moved(state, h, [third], [1.0]), t + h)
    return moved(state, h, [first, second, third, fourth], [1 / 6, 1 / 3, 1 / 3, 1 / 6])


def rk4(derivative: Derivative, state: State, end: Tensor, steps: int) -> State:
    """From time 0 to ``end`` ``()`` in equal steps: what happens to an item depends on that item alone."""
    h = end / steps
    for index in range(steps):
        state = rk4_step(derivative, state, index * h, h)
    return state


@torch.no_grad()
def dopri5(
    derivative: Derivative, state: State, end: Tensor, rtol: float, atol: float, most_steps: int = 10_000
) -> tuple[State, Tensor]:
    """From time 0 to ``end`` by steps whose error each item controls for itself, in no batch's company.

    A step's error is the difference of its solutions of orders five and four; its norm is the root mean square over
    the item's values of error / (atol + rtol |value|).

    Returns:
        The state, and how many evaluations each item took ``(B,)``.

    Raises:
        NotConverged: An item needs more than ``most_steps``.
    """
    count = len(state[0])
    t = torch.zeros(count, dtype=state[0].dtype, device=state[0].device)
    h, taken = (end / 20).expand(count), torch.zeros(count, dtype=torch.long, device=t.device)
    for _ in range(most_steps):
        going = t < end
        if not bool(going.any()):
            return state, taken
        h = torch.minimum(h, end - t)
        slopes: list[State] = []
        for node, stage in zip(_NODES, _STAGES, strict=True):
            place = moved(state, h, slopes, stage) if stage else state
            slopes.append(derivative(place, t + node * h))
        found = moved(state, h, slopes, _FIFTH)
        error = _norm(state, found, moved(state, h, slopes, _FOURTH), rtol, atol)
        accepted = going & (error <= 1)
        state = tuple(_chosen(accepted, new, old) for new, old in zip(found, state, strict=True))
        # The last step ends where it has to, rounding or not.
        t = torch.where(accepted, torch.where(t + h >= end * (1 - 1e-12), end, t + h), t)
        taken += going * len(slopes)
        factor = (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 5.0)
        h = torch.where(going, h * factor.nan_to_num(nan=0.2), h)
    rows = (t < end).nonzero().flatten().tolist()
    raise NotConverged(
        f"dopri5: {len(rows)} items need more than {most_steps} steps; loosen rtol, or the velocity is too steep.",
        rows=rows,
        residual=float((end - t).max()),
    )


def _norm(before: State, after: State, other: State, rtol: float, atol: float) -> Tensor:
    squares, numbers = torch.zeros_like(after[0].flatten(1)[:, 0]), 0
    for a, b, c in zip(before, after, other, strict=True):
        scale = atol + rtol * torch.maximum(a.abs(), b.abs())
        ratio = ((b - c) / scale).reshape(len(a), -1)
        squares, numbers = squares + ratio.square().sum(1), numbers + ratio.shape[1]
    return (squares / numbers).sqrt()


def _chosen(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
