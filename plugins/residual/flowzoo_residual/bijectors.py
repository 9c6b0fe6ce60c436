"""The residual block z = x + g(x) with a contracting g."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from flowzoo.bijectors import Bijector, MapKind, log_det_wanted, require_converged, unknown_log_det
from flowzoo.errors import InputError
from flowzoo.nets.full_precision import without_autocast
from flowzoo.nets.keyed import draw
from flowzoo_residual.branch import Branch
from flowzoo_residual.estimators import (
    MOST_DRAWN,
    RouletteName,
    Series,
    determinant,
    estimate,
    estimate_by_neumann,
    recorded_apart,
    roulette,
    truncated,
)

EstimatorName = Literal["roulette", "truncated", "exact"]

TOLERANCE = 1e-5
"""Largest residual of x + g(x) = z in float32, relative to the largest value of an item or to 1."""

TOLERANCE_FLOAT64 = 1e-11

SMALLEST = 1e-16
"""What the bound of the residual has to fall to within the iterations allowed."""


class ResidualBlock(Bijector):
    """z = x + g(x) with a Lipschitz constant of g below 1 (Behrmann et al., 2019, theorem 1).

    log|det| = log det(I + J) is estimated by its power series: by a random number of terms for each item, unbiased
    (Residual Flow), or by the first terms, biased (i-ResNet); in few dimensions it is computed. In training mode the
    gradient is that of a Neumann series, unless told otherwise; in eval mode it is that of the estimate itself, so that
    derivatives are those of the number that is returned.

    The inverse iterates x <- z - g(x), which contracts by L, the product of the layers' norms, until the residual
    r = |x + g(x) - z| is within the tolerance; the error of x is then at most r / (1 - L) (Banach). An item that has
    converged stays as it is, whatever the others of its batch need.
    """

    def __init__(
        self,
        branch: Branch,
        estimator: EstimatorName = "roulette",
        *,
        exact_terms: int = 2,
        eval_terms: int = 20,
        distribution: RouletteName = "poisson",
        rate: float = 2.0,
        probe: Literal["normal", "rademacher"] = "normal",
        gradient: Literal["neumann", "series"] = "neumann",
    ) -> None:
        """Makes the block.

        Args:
            branch: g.
            estimator: How the log-determinant is computed.
            exact_terms: Terms always computed in training mode; all of them, if truncated.
            eval_terms: The same in eval mode.
            distribution: Of the number of further terms.
            rate: Its parameter.
            probe: Distribution of the probe.
            gradient: Of the log-determinant in training mode.
        """
        super().__init__()
        self.branch = branch
        self.estimator: EstimatorName = estimator
        self.exact_terms = exact_terms
        self.eval_terms = exact_terms if estimator == "truncated" else eval_terms
        self.distribution: RouletteName = distribution
        self.rate = rate
        self.probe: Literal["normal", "rademacher"] = probe
        self.gradient = gradient
        bound = branch.bound()
        self.most_iterations = math.ceil(math.log(SMALLEST) / math.log(bound)) + 10
        self.own_kind = MapKind(
            log_det={"roulette": "unbiased", "truncated": "biased", "exact": "exact"}[estimator],  # type: ignore[arg-type]
            inverse="numeric",
            inverse_passes=math.ceil(math.log(TOLERANCE) / math.log(bound)),
            tolerance=TOLERANCE,
        )

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # Contractions and determinants are not for reduced precision.
        with without_autocast(x.device):
            return self._mapped(x) if log_det_wanted() else (x + self.branch(x), unknown_log_det(x))

    def _mapped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tensors = self.branch.tensors()
        if self.estimator == "exact":
            return determinant(self.branch.run, x, tensors)
        probe, series = draw(self, self.probe, tuple(x.shape[1:]), x, name="probe"), self._series(x)
        if self.training and self.gradient == "neumann" and torch.is_grad_enabled():
            return estimate_by_neumann(self.branch, x, tensors, probe, series)
        return estimate(self.branch, x, tensors, probe, series)

    def _series(self, x: Tensor) -> Series:
        terms = self.exact_terms if self.training else self.eval_terms
        if self.estimator == "truncated":
            return truncated(terms, x)
        uniform = draw(self, "uniform", (MOST_DRAWN,), x, name="terms")
        return roulette(uniform, terms, self.distribution, self.rate)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        with without_autocast(z.device):
            tensors = self.branch.tensors()
            x = self._fixed_point(z, tensors)
            if torch.is_grad_enabled():
                x = self._implicit(x, z, tensors)
            if not log_det_wanted():
                return x, unknown_log_det(z)
            _, log_det = self._mapped(x)
        return x, -log_det

    @torch.no_grad()
    def _fixed_point(self, z: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        tolerance = TOLERANCE_FLOAT64 if z.dtype == torch.float64 else TOLERANCE
        scale = _largest(z).clamp(min=1)
        x, residual = z, torch.full_like(z, torch.inf)
        for _ in range(self.most_iterations if len(z) else 0):
            moving = ~(_largest(residual) <= tolerance)
            again = z - self.branch.run(x, tensors)
            residual = torch.where(moving, (x - again) / scale, residual)
            x = torch.where(moving, again, x)
            if not bool((_largest(residual) > tolerance).any()):
                break
        if len(z):
            require_converged(self, residual, tolerance)
        return x

    def _implicit(self, x: Tensor, z: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """The solution x with its gradients: dx = (I + J)^-1 (dz - dg), solved for in the backward pass."""
        with recorded_apart():
            start = x.detach().clone().requires_grad_()
            y = self.branch.run(start, [t.detach() for t in tensors])
        recorded: Tensor = z - self.branch.run(x.detach(), tensors)
        if recorded.requires_grad:
            recorded.register_hook(lambda gradient: self._solved(gradient, start, y))
        # Another tensor: the hook is not for derivatives by x itself, of which the log-determinant is made.
        return recorded.view_as(recorded)

    def _solved(self, gradient: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """W with (I + J') w = gradient, by iterating w <- gradient - J' w."""
        if torch.is_grad_enabled():
            raise InputError(
                "ResidualBlock.inverse has first derivatives only; differentiate the forward direction twice."
            )
        tolerance = TOLERANCE_FLOAT64 if x.dtype == torch.float64 else TOLERANCE
        solution = gradient
        for _ in range(self.most_iterations):
            (row,) = torch.autograd.grad(y, x, solution, retain_graph=True)
            again = gradient - row
            change, solution = (again - solution).abs().max(), again
            if not bool(change > tolerance * again.abs().max()):
                break
        return solution


def _largest(x: Tensor) -> Tensor:
    """The largest magnitude of each item, to be broadcast over it."""
    return x.abs().flatten(1).amax(dim=1).reshape(-1, *(1,) * (x.ndim - 1))
