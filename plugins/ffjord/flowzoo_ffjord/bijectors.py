"""The continuous flow dz/dt = f(z, t), d log|det| / dt = tr(df/dz)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from flowzoo.bijectors import (
    Bijector,
    MapKind,
    log_det_wanted,
    require_converged,
    round_trip_wanted,
    sum_per_item,
    unknown_log_det,
)
from flowzoo.nets.full_precision import without_autocast
from flowzoo.nets.keyed import draw
from flowzoo.nets.transforms import transforms_active
from flowzoo_ffjord.solvers import State, dopri5, rk4, rk4_step

TraceName = Literal["hutchinson", "exact"]

TOLERANCE = 1e-5
"""Largest residual of an inverted step, relative to an item's largest value or to 1, in float32."""

TOLERANCE_FLOAT64 = 1e-11

MOST_CORRECTIONS = 60


@dataclass
class Penalties:
    """Integrals along the way of every flow evaluated in :func:`penalised`, summed, ``(B,)`` each.

    Attributes:
        kinetic: Of |f|^2 (Finlay et al., 2020, equation 7).
        jacobian: Of |e' df/dz|^2, e the probe: an estimate of the squared Frobenius norm (equation 9).
    """

    kinetic: Tensor | float = 0.0
    jacobian: Tensor | float = 0.0


@dataclass
class Audit:
    """Settings and findings of :func:`adaptive`.

    Attributes:
        rtol: Relative tolerance of a step.
        atol: Absolute tolerance of a step.
        evaluations: Evaluations of f that each item took, one tensor ``(B,)`` a flow.
    """

    rtol: float
    atol: float
    evaluations: list[Tensor] = field(default_factory=list)


class ContinuousFlow(Bijector):
    """z(T) from x = z(0), log|det| the integral of tr(df/dz) (Grathwohl et al., 2019, equations 3 and 4).

    Solved on a fixed grid by the classical Runge-Kutta method, with ordinary gradients of those steps. The trace is
    exact in few dimensions, or Hutchinson's e' (df/dz) e with one probe e for the whole solution, whose integral is
    unbiased. log|det| is that of the flow in continuous time, up to the solver's error, which :func:`adaptive` audits.

    The inverse takes the grid backwards and corrects each step until the forward step leads back to z within the
    tolerance: it inverts the steps as they were taken, for twice the evaluations or more. Drawn samples need no way
    back: they are the solution on the grid taken backwards, as far from continuous time as the density's own.

    Attributes:
        sqrt_end_time: The root of T: a parameter, or a buffer.
        train_steps: Steps from 0 to T in training mode.
        eval_steps: Steps in eval mode.
    """

    sqrt_end_time: Tensor

    def __init__(
        self,
        velocity: nn.Module,
        steps: int = 4,
        trace: TraceName = "hutchinson",
        *,
        eval_steps: int = 0,
        probe: Literal["rademacher", "normal"] = "rademacher",
        learn_time: bool = True,
    ) -> None:
        """Makes the flow, T = 1.

        Args:
            velocity: ``velocity(z, t)`` with t ``()`` for all, or ``(B,)``.
            steps: Of the grid.
            trace: How it is computed.
            eval_steps: Of the grid in eval mode; 0 for the same.
            probe: Distribution of e.
            learn_time: Whether T is learned.
        """
        super().__init__()
        self.velocity = velocity
        self.train_steps, self.eval_steps = steps, eval_steps or steps
        self.trace: TraceName = trace
        self.probe: Literal["rademacher", "normal"] = probe
        self.audit: Audit | None = None
        self.penalties: Penalties | None = None
        if learn_time:
            self.sqrt_end_time = nn.Parameter(torch.ones(()))
        else:
            self.register_buffer("sqrt_end_time", torch.ones(()))
        self.own_kind = MapKind(
            log_det="exact" if trace == "exact" else "unbiased",
            # A solution up to the solver's error, and its inverse.
            forward="numeric",
            inverse="numeric",
            forward_passes=4 * self.eval_steps,
            inverse_passes=4 * self.eval_steps,
            tolerance=TOLERANCE,
        )

    @property
    def steps(self) -> int:
        """Steps of the grid in the mode that the flow is in."""
        return self.train_steps if self.training else self.eval_steps

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        with without_autocast(x.device):
            if not log_det_wanted() and self.audit is None and self.penalties is None:
                (z,) = rk4(self._moving, (x,), self.sqrt_end_time.square(), self.steps)
                return z, unknown_log_det(x)
            probe = None if self.trace == "exact" else draw(self, self.probe, tuple(x.shape[1:]), x)
            return self._solved(x, probe)

    @torch.no_grad()
    def waypoints(self, x: Tensor, context: Tensor | None, count: int) -> list[tuple[float, Tensor]]:
        """The batch after some of the grid's steps, evenly in time; see the base class."""
        h = self.sqrt_end_time.square() / self.steps
        wanted = {round(place * self.steps / (count + 1)) for place in range(1, count + 1)}
        found: list[tuple[float, Tensor]] = []
        state: State = (x,)
        for index in range(self.steps - 1):
            state = rk4_step(self._moving, state, index * h, h)
            if index + 1 in wanted:
                found.append(((index + 1) / self.steps, state[0]))
        return found

    def _solved(self, x: Tensor, probe: Tensor | None) -> tuple[Tensor, Tensor]:
        zeros, end = x.new_zeros(len(x)), self.sqrt_end_time.square()
        penalties, recorded = self.penalties, torch.is_grad_enabled()

        def derivative(state: State, t: Tensor) -> State:
            return self._derivative(state, t, probe, recorded, penalties is not None)

        state: State = (x, zeros) if penalties is None else (x, zeros, zeros, zeros)
        if self.audit is not None:
            state, taken = dopri5(derivative, state, end, self.audit.rtol, self.audit.atol)
            self.audit.evaluations.append(taken)
        else:
            state = rk4(derivative, state, end, self.steps)
        if penalties is not None:
            penalties.kinetic = penalties.kinetic + state[2]
            penalties.jacobian = penalties.jacobian + state[3]
        return state[0], state[1]

    def _moving(self, state: State, t: Tensor) -> State:
        return (self.velocity(state[0], t),)

    def _derivative(
        self, state: State, t: Tensor, probe: Tensor | None, recorded: bool, penalised: bool
    ) -> State:
        """Velocity, trace and, if asked for, the penalties' rates."""
        if transforms_active():
            # Transforms differentiate functions, not tensors that were recorded.
            f, pull = torch.func.vjp(lambda v: self.velocity(v, t), state[0])  # type: ignore[misc]
            one = torch.eye(f.shape[1], dtype=f.dtype, device=f.device)
            directions = [row.expand_as(f) for row in one] if probe is None else [probe]
            return _rates(f, [pull(direction)[0] for direction in directions], probe, penalised)
        with torch.inference_mode(mode=False), torch.enable_grad():
            z = (
                state[0]
                if recorded and state[0].requires_grad
                else state[0].detach().clone().requires_grad_()
            )
            f = self.velocity(z, t.clone())
            if probe is None:
                last = z.shape[1] - 1
                rows = [_row(f[:, i].sum(), z, None, i < last, recorded) for i in range(last + 1)]
            else:
                rows = [_row(f, z, probe.clone(), False, recorded)]
            rates = _rates(f, rows, probe, penalised)
        return rates if recorded else tuple(rate.detach() for rate in rates)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        with without_autocast(z.device):
            h = self.sqrt_end_time.square() / self.steps
            x = z
            for index in reversed(range(self.steps)):
                x = self._step_back(x, index * h, h)
        if not log_det_wanted():
            return x, unknown_log_det(z)
        _, log_det = self._forward(x, context)
        return x, -log_det

    def _step_back(self, z: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """The x from which one step leads to z: a step backwards, corrected by x <- x + b(z) - b(forward(x))."""

        def forward(x: Tensor) -> Tensor:
            return rk4_step(self._moving, (x,), t, h)[0]

        def backward(x: Tensor) -> Tensor:
            return rk4_step(self._moving, (x,), t + h, -h)[0]

        if not round_trip_wanted():
            return backward(z)
        if torch.is_grad_enabled():
            return _implicit(self._corrected(forward, backward, z), z, forward, backward)
        return self._corrected(forward, backward, z)

    @torch.no_grad()
    def _corrected(
        self, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor], z: Tensor
    ) -> Tensor:
        tolerance = TOLERANCE_FLOAT64 if z.dtype == torch.float64 else TOLERANCE
        first = backward(z)
        x, residual, scale = first, torch.zeros_like(z), _largest(z).clamp(min=1)
        for _ in range(MOST_CORRECTIONS if len(z) else 0):
            reached = forward(x)
            residual = (reached - z) / scale
            off = ~(_largest(residual) <= tolerance)
            if not bool(off.any()):
                break
            # An item that is there stays as it is, whatever the others need.
            x = torch.where(off, x + first - backward(reached), x)
        if len(z):
            require_converged(self, residual, tolerance)
        return x


def _rates(f: Tensor, rows: Sequence[Tensor], probe: Tensor | None, penalised: bool) -> State:
    """Velocity, trace and, if asked for, the penalties' rates, of the rows of df/dz, or of e' df/dz for a probe e."""
    if probe is None:
        trace = torch.stack([row[:, i] for i, row in enumerate(rows)]).sum(0)
    else:
        trace = sum_per_item(rows[0] * probe)
    if not penalised:
        return f, trace
    squares = torch.stack([sum_per_item(row.square()) for row in rows]).sum(0)
    return f, trace, sum_per_item(f.square()), squares


def _row(f: Tensor, z: Tensor, e: Tensor | None, keep: bool, recorded: bool) -> Tensor:
    (row,) = torch.autograd.grad(f, z, e, retain_graph=keep or recorded, create_graph=recorded)
    return row


def _largest(x: Tensor) -> Tensor:
    return x.abs().flatten(1).amax(dim=1).reshape(-1, *(1,) * (x.ndim - 1))


def _implicit(
    x: Tensor, z: Tensor, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]
) -> Tensor:
    """The solution x with gradients: those of x + b(z) - b(forward(x)), corrected until they are the inverse's.

    Each correction multiplies the error of the gradient by that of b as an inverse, as it does with the value.
    """
    for _ in range(3):
        x = x + backward(z) - backward(forward(x))
    return x


@contextmanager
def penalised(module: nn.Module) -> Iterator[Penalties]:
    """A context in which every continuous flow inside adds up its penalties, with gradients; activations are stored."""
    found = Penalties()
    flows = [part for part in module.modules() if isinstance(part, ContinuousFlow)]
    for flow in flows:
        flow.penalties = found
    try:
        yield found
    finally:
        for flow in flows:
            flow.penalties = None


@contextmanager
def adaptive(module: nn.Module, rtol: float = 1e-6, atol: float = 1e-6) -> Iterator[Audit]:
    """A context in which every continuous flow inside is solved by an adaptive method, for an audit of its grid.

    Each item has steps of its own, so that its density does not depend on its batch. Without gradients.
    """
    audit = Audit(rtol, atol)
    flows = [part for part in module.modules() if isinstance(part, ContinuousFlow)]
    for flow in flows:
        flow.audit = audit
    try:
        with torch.no_grad():
            yield audit
    finally:
        for flow in flows:
            flow.audit = None
