"""Directions that solve an equation: monotone functions inverted by bracketing, residuals checked and reported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flowzoo.arguments import few
from flowzoo.errors import NotConverged

MOST_DOUBLINGS = 60
"""How often a bracket is doubled before the equation counts as without a solution."""


class Residuals:
    """The residuals of the numeric directions that were computed.

    Attributes:
        largest: The largest of any item, 0 if there was none.
        count: How many equations were solved.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self.count = 0


class _Current(threading.local):
    found: Residuals | None = None


_CURRENT = _Current()


@contextmanager
def residuals() -> Iterator[Residuals]:
    """A context that collects the residuals of every numeric direction computed in it, by this thread."""
    before, found = _CURRENT.found, Residuals()
    _CURRENT.found = found
    try:
        yield found
    finally:
        _CURRENT.found = before


def require_converged(owner: nn.Module, residual: Tensor, tolerance: float) -> None:
    """Reports the residual of a solved equation, and raises unless every item is within the tolerance.

    Args:
        owner: The bijector.
        residual: ``(B, ...)``, in units of what was solved for; NaN counts as not converged.
        tolerance: Largest magnitude allowed.

    Raises:
        NotConverged: It names the items.
    """
    if not residual.numel():
        return
    worst = residual.detach().abs().reshape(len(residual), -1).amax(dim=1)
    found = _CURRENT.found
    if found is not None:
        found.count += 1
        found.largest = max(found.largest, float(worst.nan_to_num(nan=torch.inf).max()))
    wrong = (~(worst <= tolerance)).nonzero().flatten().tolist()
    if wrong:
        largest = float(worst[wrong].nan_to_num(nan=torch.inf).max())
        raise NotConverged(
            f"{type(owner).__name__}: {len(wrong)} of {len(worst)} items did not converge (rows {few(wrong)}): the "
            f"largest residual is {largest:.3g}, the tolerance {tolerance:.3g}. The values are far outside what the "
            "model was trained on, or it is untrained; try flow.double().",
            rows=wrong,
            residual=largest,
        )


def solve_increasing(
    function: Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    guess: Tensor | None = None,
    width: float = 1.0,
    steps: int = 60,
) -> Tensor:
    """Solves f(x) = y elementwise for an increasing f, by a bracket that is doubled and then halved.

    Args:
        function: f, elementwise and increasing, on tensors of the target's shape.
        target: y, best in float64.
        guess: Where the bracket begins; 0 if not given.
        width: Half the bracket's first width.
        steps: Halvings; each gains a bit.

    Returns:
        x, the target's shape; NaN where no bracket was found. The caller checks the residual f(x) - y, see
        :func:`require_converged`.
    """
    with torch.no_grad():
        centre = torch.zeros_like(target) if guess is None else guess.detach()
        low, high = _bracket(function, target.detach(), centre, width)
        for _ in range(steps):
            middle = torch.lerp(low, high, 0.5)
            below = function(middle) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return torch.lerp(low, high, 0.5)


def solve_by_newton(
    function: Callable[..., tuple[Tensor, Tensor]],
    target: Tensor,
    parameters: Sequence[Tensor] = (),
    *,
    guess: Tensor | None = None,
    width: float = 1.0,
    steps: int = 100,
) -> Tensor:
    """Solves f(x; parameters) = y elementwise for an increasing f whose slope is known.

    As :func:`solve_increasing`, by a bracket; inside it Newton steps, and halvings where such a step would leave the
    bracket or the one before did not halve the error. Elements that are solved are not computed any further.

    Args:
        function: ``function(x, *parameters)`` gives f and its slope for x ``(N,)`` and parameters ``(N, ...)``; an
            infinite value far out counts as what it is.
        target: y, best in float64.
        parameters: Each of the target's shape and further dimensions.
        guess: Where the bracket begins and the first step is taken; 0 if not given.
        width: Half the bracket's first width.
        steps: The most steps.

    Returns:
        x, the target's shape; NaN where no bracket was found. The caller checks the residual.
    """
    with torch.no_grad():
        y = target.detach().flatten()
        held = [part.detach().flatten(0, target.ndim - 1) for part in parameters]
        x = torch.zeros_like(y) if guess is None else guess.detach().flatten().clone()
        low, high = _bracket(lambda at: function(at, *held)[0], y, x, width)
        x = torch.minimum(torch.maximum(x, low), high)
        solution, active = x.clone(), torch.arange(len(y), device=y.device)
        last = torch.full_like(y, torch.inf)
        for _ in range(steps):
            value, slope = function(x, *held)
            error = value - y
            low, high = torch.where(error < 0, x, low), torch.where(error < 0, high, x)
            newton = x - error / slope
            good = (newton > low) & (newton < high) & (error.abs() <= 0.5 * last)
            following = torch.where(error == 0, x, torch.where(good, newton, torch.lerp(low, high, 0.5)))
            close = 4 * torch.finfo(y.dtype).eps * x.abs().clamp(min=1)
            # The negation ends those that are not a number, too.
            going = ((following - x).abs() > close) & (high - low > close)
            solution[active] = following
            if not bool(going.any()):
                break
            keep = going.nonzero().squeeze(1)
            x, last, active = following[keep], error.abs()[keep], active[keep]
            y, low, high = y[keep], low[keep], high[keep]
            held = [part[keep] for part in held]
        return solution.view_as(target)


def _bracket(
    function: Callable[[Tensor], Tensor], target: Tensor, centre: Tensor, width: float
) -> tuple[Tensor, Tensor]:
    """Bounds between which the function takes the target; NaN where there are none."""
    low, high = centre - width, centre + width
    for _ in range(MOST_DOUBLINGS):
        too_high, too_low = function(low) > target, function(high) < target
        if not bool((too_high | too_low).any()):
            break
        width *= 2
        low, high = torch.where(too_high, low - width, low), torch.where(too_low, high + width, high)
    else:
        nowhere = too_high | too_low | ~torch.isfinite(target)
        low = torch.where(nowhere, torch.nan, low)
        high = torch.where(nowhere, torch.nan, high)
    return low, high


def polished(x: Tensor, y: Tensor, derivative: Tensor, target: Tensor) -> Tensor:
    """One Newton step from a solution, by which gradients of an implicit function flow.

    x - (f(x) - y) / f'(x) has the value of x (better by one step) and, with x and f' held fixed and f recorded, the
    gradients of the solution with respect to y and to the parameters of f.

    Args:
        x: A solution, without gradients.
        y: f(x), recorded.
        derivative: f'(x); gradients do not pass through it.
        target: y, recorded.
    """
    return x.detach() - (y - target) / derivative.detach()
