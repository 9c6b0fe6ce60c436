"""Estimates of log det(I + J) by power series, and backward passes that need no stored series.

log det(I + J) = sum over k >= 1 of (-1)^(k+1) tr(J^k) / k for a Jacobian J of norm below 1. A trace is the mean of
v' J^k v over probes v of mean 0 and covariance I (Hutchinson).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.bijectors import sum_per_item
from flowzoo.nets.transforms import transforms_active

RouletteName = Literal["poisson", "geometric"]
Function = Callable[[Tensor, Sequence[Tensor]], Tensor]
Row = Callable[[Tensor], Tensor]
"""The map of u to u' J."""


class Contraction(Protocol):
    """The function g of an input and of a list of tensors."""

    def run(self, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """g(x), the shape of x."""
        ...

    def linearised(self, x: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Row]:
        """g(x) without a graph, and the products u' J at the first items of x, as many as u has."""
        ...


MOST_DRAWN = 64
"""Drawn terms of an item at most; a Poisson(2) number exceeds it once in 10^70, a geometric(1/2) one in 10^19."""

SMALLEST_PRODUCT = 1e-25
"""Products u' J below it are taken as zero: no sum of such terms is seen next to the first one."""

GRID = 2.0**24
"""Uniform numbers are multiples of 1 / GRID; chances that are too are met exactly."""


class Series(NamedTuple):
    """The weights of the terms of a series, for each item of a batch.

    Attributes:
        value: ``(K, B)``, of the terms k = 1 .. K of the log-determinant.
        gradient: ``(L, B)``, of the powers j = 0 .. L - 1 of the Neumann series of its gradient.
    """

    value: Tensor
    gradient: Tensor

    def longest_first(self) -> tuple[Tensor, list[int]]:
        """An order of the items by their numbers of terms, and how many items have a first, a second, ... term."""
        there = self.value != 0
        order = there.sum(dim=0).argsort(descending=True, stable=True)
        return order, there.sum(dim=1).tolist()

    def of(self, items: Tensor) -> Series:
        """The series of these items."""
        return Series(self.value[:, items], self.gradient[:, items])


def truncated(terms: int, like: Tensor) -> Series:
    """The first terms alone, a biased estimate."""
    weights = like.new_ones(terms, len(like))
    return Series(weights, weights)


def roulette(uniform: Tensor, exact: int, kind: RouletteName, rate: float) -> Series:
    """Russian roulette: a random number N of terms after the first m, each divided by the chance that it is computed.

    E[1{N >= j} / P(N >= j)] = 1, so the expectation is the whole series (Chen et al., 2019, theorem 1).

    Args:
        uniform: Uniform numbers ``(B, J)``, independent: one for each step from j - 1 to j.
        exact: m.
        kind: N is Poisson(rate), or the number of terms before a stop that comes with chance ``rate`` after each.
        rate: See there.
    """
    chances = torch.tensor(_chances(kind, rate, uniform.shape[1]), dtype=torch.float64, device=uniform.device)
    goes_on = (uniform.double() < chances).long().cumprod(dim=1)
    drawn = goes_on[:, : int(goes_on.sum(dim=1).max()) if len(uniform) else 0]
    extra = (drawn / chances.cumprod(0)[: drawn.shape[1]]).T.to(uniform.dtype)
    weights = torch.cat((extra.new_ones(exact, len(uniform)), extra))
    return Series(weights, torch.cat((weights.new_ones(1, len(uniform)), weights)))


@lru_cache(maxsize=64)
def _chances(kind: RouletteName, rate: float, count: int) -> tuple[float, ...]:
    """P(N >= j | N >= j - 1) for j = 1 .. count, rounded up to the grid of uniform numbers."""
    if kind == "geometric":
        return (math.ceil((1 - rate) * GRID) / GRID,) * count
    # P(N >= j) / P(N >= j - 1), from sums of the tail rate^i / i!: small numbers first.
    logs = [i * math.log(rate) - math.lgamma(i + 1) for i in range(count + 200)]
    tails = [math.fsum(math.exp(value - logs[j]) for value in logs[j:]) for j in range(count + 1)]
    chances = [math.exp(logs[j] - logs[j - 1]) * tails[j] / tails[j - 1] for j in range(1, count + 1)]
    return tuple(math.ceil(chance * GRID) / GRID for chance in chances)


@contextmanager
def recorded_apart() -> Iterator[None]:
    """A context in which operations are recorded, whatever is switched off around it."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        yield


def _per_item(weights: Tensor, like: Tensor) -> Tensor:
    return weights.reshape(-1, *(1,) * (like.ndim - 1))


def power_series(
    row_of: Row, probe: Tensor, series: Series, having: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """The estimate of log det(I + J), and the Neumann series n' = sum_j (-1)^j w_j v' J^j.

    The gradient of the log-determinant by any parameter is the mean of n' (dJ) v (Chen et al., 2019, equation 8).

    Args:
        row_of: The products u' J.
        probe: v.
        series: The weights w.
        having: How many items, the first of them, have a first, a second, ... term; None: all have all.

    Returns:
        The estimate ``(B,)`` and n, the shape of v.
    """
    row, log_det = probe, probe.new_zeros(len(probe))
    neumann = (
        probe * _per_item(series.gradient[0], probe) if len(series.gradient) else torch.zeros_like(probe)
    )
    for k, weights in enumerate(series.value, start=1):
        count = len(probe) if having is None else having[k - 1]
        # Powers of a small Jacobian end in subnormal numbers, with which a processor is twenty times slower.
        row = F.hardshrink(row_of(row[:count]), SMALLEST_PRODUCT)
        sign = 1 if k % 2 else -1
        log_det = _added(log_det, sign / k * weights[:count] * sum_per_item(row * probe[:count]))
        if k < len(series.gradient):
            neumann = _added(neumann, -sign * row * _per_item(series.gradient[k][:count], row))
    return log_det, neumann


def _added(total: Tensor, terms: Tensor) -> Tensor:
    """The total with terms of its first items."""
    if len(terms) == len(total):
        return total + terms
    return torch.cat((total[: len(terms)] + terms, total[len(terms) :]))


def _linearised_series(
    function: Contraction, x: Tensor, tensors: Sequence[Tensor], probe: Tensor, series: Series
) -> tuple[Tensor, Tensor, Tensor]:
    """g(x), the estimate and n, without a graph: no item is multiplied on after its last term."""
    order, having = series.longest_first()
    back = order.argsort()
    y, row_of = function.linearised(x[order], tensors)
    log_det, neumann = power_series(row_of, probe[order], series.of(order), having)
    return y[back], log_det[back], neumann[back]


def _recorded_rows(y: Tensor, x: Tensor) -> Row:
    """The products u' J of J = dy/dx, with a graph."""
    return lambda u: torch.autograd.grad(y, x, u, retain_graph=True, create_graph=True)[0]


def exact_log_det(y: Tensor, x: Tensor, create_graph: bool) -> Tensor:
    """Log det(I + dy/dx) ``(B,)`` of vectors ``(B, D)``, by D vector-Jacobian products."""
    rows = []
    for i in range(x.shape[1]):
        keep = create_graph or i + 1 < x.shape[1]
        rows.append(torch.autograd.grad(y[:, i].sum(), x, retain_graph=keep, create_graph=create_graph)[0])
    jacobian = torch.stack(rows, dim=1) + torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    # A contraction's I + J has a positive determinant.
    log_det: Tensor = torch.linalg.slogdet(jacobian).logabsdet
    return log_det


def estimate(
    function: Contraction, x: Tensor, tensors: Sequence[Tensor], probe: Tensor, series: Series
) -> tuple[Tensor, Tensor]:
    """X + g(x) and the estimate of its log-determinant, whose gradient is that of the estimate itself."""
    if transforms_active():
        y, pull = torch.func.vjp(lambda v: function.run(v, tensors), x)  # type: ignore[misc]
        return x + y, power_series(lambda u: pull(u)[0], probe, series)[0]
    if not torch.is_grad_enabled():
        y, log_det, _ = _linearised_series(function, x, tensors, probe, series)
        return x + y, log_det
    start = _start(x, create_graph=True)
    y = function.run(start, tensors)
    log_det, _ = power_series(_recorded_rows(y, start), probe, series)
    return start + y, log_det


def determinant(function: Function, x: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """X + g(x) of vectors and its log-determinant."""
    if transforms_active():
        return _transformed_determinant(function, x, tensors)
    create_graph = torch.is_grad_enabled()
    with recorded_apart():
        start = _start(x, create_graph)
        y = function(start, tensors if create_graph else _plain(tensors))
        log_det = exact_log_det(y, start, create_graph)
    return (start + y, log_det) if create_graph else ((start + y).detach(), log_det.detach())


def _transformed_determinant(
    function: Function, x: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The same for the exact log-determinant."""
    y, pull = torch.func.vjp(lambda v: function(v, tensors), x)  # type: ignore[misc]
    one = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    jacobian = torch.stack([pull(row.expand_as(y))[0] for row in one], dim=1) + one
    return x + y, torch.linalg.slogdet(jacobian).logabsdet


def _start(x: Tensor, create_graph: bool) -> Tensor:
    """X as something to differentiate by; a tensor of inference mode cannot be."""
    if not create_graph:
        return x.detach().clone().requires_grad_()
    return x if x.requires_grad else x.detach().requires_grad_()


def _plain(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach().clone() if t.is_inference() else t.detach() for t in tensors]


def estimate_by_neumann(
    function: Contraction, x: Tensor, tensors: Sequence[Tensor], probe: Tensor, series: Series
) -> tuple[Tensor, Tensor]:
    """X + g(x) and the estimate of its log-determinant, whose gradient is estimated by the Neumann series.

    The series are computed without a graph of their own and are forgotten but for one vector n an item. The backward
    pass evaluates g once more and differentiates sum_b u_b n_b' J_b v_b, with the upstream gradients u_b of every item
    as they come: weighted items, penalties and gradients of single items are right.
    """
    z, log_det = _Neumann.apply(function, probe, series, x, *tensors)
    return z, log_det


class _Neumann(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Contraction, probe: Tensor, series: Series, x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, log_det, neumann = _linearised_series(function, x, tensors, probe, series)
        ctx.function, ctx.series = function, series
        ctx.save_for_backward(probe, neumann, x, *tensors)
        return x + y, log_det

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> Any:
        probe, neumann, x, *tensors = ctx.saved_tensors
        create_graph = torch.is_grad_enabled()
        wanted = [True, *ctx.needs_input_grad[4:]]
        with torch.enable_grad():
            if create_graph:
                # Other tensors to autograd: x may depend on a parameter, too.
                start, again = x.view_as(x), [t.view_as(t) for t in tensors]
            else:
                start = x.detach().requires_grad_()
                again = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted[1:], strict=True)]
            y = ctx.function.run(start, again)
            inputs = [t for t, want in zip([start, *again], wanted, strict=True) if want]
            if create_graph:
                outputs = (y, _jacobian_times(y, start, probe))
                _, neumann = power_series(_recorded_rows(y, start), probe, ctx.series)
                gradients = (grad_z, neumann * _per_item(grad_log_det, x))
            else:
                (row,) = torch.autograd.grad(y, start, neumann, create_graph=True)
                outputs, gradients = (y, row), (grad_z, probe * _per_item(grad_log_det, x))
            found = list(
                torch.autograd.grad(outputs, inputs, gradients, create_graph=create_graph, allow_unused=True)
            )
        # z = x + g(x).
        found[0] = found[0] + grad_z
        rest = iter(found)
        return None, None, None, *(next(rest) if want else None for want in wanted)


def _jacobian_times(y: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """J v, by differentiating u' J, which is linear in u."""
    u = torch.zeros_like(y).requires_grad_()
    (row,) = torch.autograd.grad(y, x, u, create_graph=True)
    (column,) = torch.autograd.grad(row, u, v, create_graph=True)
    return column
