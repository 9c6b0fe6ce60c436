"""The numerical inversion of the logistic mixture's logit-CDF, many scalar equations at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR_ITERATIONS = 24
LOG_ITERATIONS = 80

SETTLED = 0.5
"""Error of a root, in units of the dtype's eps, that the next Newton step may leave."""

UNGUARDED = 2
"""Newton steps that all elements take before each is looked after."""

# Sums below this may hold components that have underflowed.
TINY = 1e-30


class _Problem(NamedTuple):
    """N scalar equations: components ``(K, N)``, everything else ``(N,)``."""

    weights: Tensor
    means: Tensor
    rates: Tensor
    steepest: Tensor
    y: Tensor
    low: Tensor
    high: Tensor
    x: Tensor
    last_error: Tensor

    def select(self, chosen: Tensor) -> _Problem:
        return _Problem(*(t.index_select(-1, chosen) for t in self))


def roots(weights: Tensor, means: Tensor, rates: Tensor, y: Tensor) -> Tensor:
    """Solves ``logit F(x) = y`` for every element.

    First some of Newton's steps on all elements, which solve most. The others take Newton's steps in a bracket, on F
    itself, which costs a third of its logarithm; solved elements leave the batch, so that stragglers in the flat
    valleys between far components do not hold up the others. What is not solved then, such as tails in which F
    underflows, goes on in log space.

    Args:
        weights: The components' weights, ``(K, N)``.
        means: Their means, ``(K, N)``.
        rates: Their inverse scales, ``(K, N)``.
        y: Targets ``(N,)``.

    Returns:
        Roots ``(N,)``.
    """
    reach = means + y / rates
    low, high = reach.amin(dim=0), reach.amax(dim=0)
    start = (weights * reach).sum(dim=0).clamp(low, high)
    problem = _Problem(
        weights, means, rates, rates.amax(dim=0), y, low, high, start, torch.full_like(y, torch.inf)
    )
    # In float64 accuracy counts: there the equation is the one that the forward direction evaluates.
    linear = LINEAR_ITERATIONS if y.dtype != torch.float64 else 0
    problem, moving = _few_steps(problem) if linear else (problem, torch.ones_like(y, dtype=torch.bool))
    root, left = problem.x, moving.nonzero().squeeze(1)
    problem = problem.select(left)
    for evaluate, iterations in ((_in_linear_space, linear), (_in_log_space, LOG_ITERATIONS)):
        for _ in range(iterations):
            if not left.numel():
                return root
            problem, moving = _step(problem, *evaluate(problem))
            pending = moving.nonzero().squeeze(1)
            if 4 * pending.numel() <= 3 * left.numel():
                root[left] = problem.x
                problem, left = problem.select(pending), left[pending]
    root[left] = problem.x
    return root


def roots_without_branches(weights: Tensor, means: Tensor, rates: Tensor, y: Tensor) -> Tensor:
    """As :func:`roots`, by a fixed number of iterations on all elements: for transforms and compilers."""
    reach = means + y / rates
    low, high = reach.amin(dim=0), reach.amax(dim=0)
    start = (weights * reach).sum(dim=0).clamp(low, high)
    problem = _Problem(
        weights, means, rates, rates.amax(dim=0), y, low, high, start, torch.full_like(y, torch.inf)
    )
    for _ in range(LOG_ITERATIONS):
        problem, _ = _step(problem, *_in_log_space(problem))
    return problem.x


def _few_steps(p: _Problem) -> tuple[_Problem, Tensor]:
    """Newton's steps on all elements, kept in the bracket and without its care; and what still moves."""
    for _ in range(UNGUARDED):
        error, slope = _in_linear_space(p)
        step = error.div_(slope)
        settled = _is_settled(p, step)
        # Not a number where F underflows: there the element stays where it is.
        target = torch.clamp(p.x - step.nan_to_num_(0.0), p.low, p.high)
        p = p._replace(x=target)
    return p, ~settled


def _is_settled(p: _Problem, step: Tensor) -> Tensor:
    """Whether x - step is the root to the last digits.

    With g = logit F, |g''| <= 2 r g' where r is the greatest rate, so that a Newton step of size d leaves at most about
    r d^2. No second step is needed to see it. False where the step is not a number.
    """
    tolerance = SETTLED * torch.finfo(step.dtype).eps
    return step.square().mul_(p.steepest) <= tolerance * (1 + p.x.abs())


def _step(problem: _Problem, error: Tensor, slope: Tensor) -> tuple[_Problem, Tensor]:
    """One Newton step, or bisection where that leaves the bracket or gains too little; and what still moves."""
    x, size = problem.x, error.abs()
    low, high = torch.where(error < 0, x, problem.low), torch.where(error > 0, x, problem.high)
    step = error / slope
    newton = x - step
    sound = (newton >= low) & (newton <= high) & (2 * size <= problem.last_error)
    target = torch.where(sound, newton, 0.5 * (low + high))
    tolerance = 2 * torch.finfo(x.dtype).eps
    # An error that is not a number tells nothing: the bracket stays, and the element is not done.
    still = ((target - x).abs() <= tolerance * (1 + x.abs())) & ~error.isnan()
    moving = ~(still | (sound & _is_settled(problem, step)))
    return problem._replace(low=low, high=high, x=target, last_error=size), moving


def _in_linear_space(p: _Problem) -> tuple[Tensor, Tensor]:
    """The error logit F(x) - y and its slope; not a number where F or 1 - F loses its digits to underflow."""
    u = (p.x - p.means).mul_(p.rates)
    left = torch.sigmoid(u)
    right = torch.sigmoid_(u.neg_())
    sf = (p.weights * right).sum(dim=0)
    left.mul_(p.weights)
    cdf = left.sum(dim=0)
    slope = left.mul_(right).mul_(p.rates).sum(dim=0) / (cdf * sf)
    known = torch.minimum(cdf, sf) > TINY
    return torch.where(known, torch.log(cdf / sf) - p.y, torch.nan), slope


def _in_log_space(p: _Problem) -> tuple[Tensor, Tensor]:
    """The same from log-sum-exps, which reach into the tails."""
    log_weights = p.weights.log()
    u = (p.x - p.means) * p.rates
    log_left = F.logsigmoid(u)
    log_right = log_left - u
    log_cdf = torch.logsumexp(log_weights + log_left, dim=0)
    log_sf = torch.logsumexp(log_weights + log_right, dim=0)
    log_pdf = torch.logsumexp(log_weights + p.rates.log() + log_left + log_right, dim=0)
    return log_cdf - log_sf - p.y, torch.exp(log_pdf - log_cdf - log_sf)
