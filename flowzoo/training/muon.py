"""Muon for the matrices and kernels inside a network, Adam for everything else: one optimizer over all parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import hardshrink
from torch.optim.adam import adam

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["MuonAdam"]

SMALLEST = 16
"""Rows and columns that a matrix has at least, for its updates to be orthogonalized; below, Adam moves it."""

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial in Jordan et al.: steep at zero, and five steps bring singular values to between 0.7 and 1.2."""

STEPS = 5

NEGLIGIBLE = 1e-9
"""Entries of a matrix of norm 1 that are taken for 0."""


class MuonAdam(torch.optim.Optimizer):
    """Moves every large enough matrix along the nearest orthogonal matrix to its averaged gradient.

    A convolution's kernel ``(out, in, h, w)`` counts as the matrix ``(out, in h w)``. Smaller ones, vectors and scalars
    are moved by Adam. ``torch.optim.Muon`` takes matrices alone; a flow has all kinds of parameters in one recipe.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the step's scale is theirs,
    sqrt(max(1, rows / columns)) times the learning rate. The average is Nesterov's.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate of the matrices: of the order of 0.02, whatever the network.
        momentum: Decay rate of the matrices' averaged gradients.
        adam_ratio: Adam's learning rate as a share of ``lr``.
        betas: Adam's decay rates.
        eps: Added to Adam's denominator.
        weight_decay: Decoupled weight decay of the matrices.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        adam_ratio: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in (("momentum", momentum), ("betas[0]", betas[0]), ("betas[1]", betas[1])):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; expected a number from 0 up to 1.")
        for name, value in (("lr", lr), ("adam_ratio", adam_ratio), ("eps", eps)):
            if not value > 0:
                raise ValueError(f"{name} is {value}; expected a positive number.")
        defaults = {"lr": lr, "momentum": momentum, "adam_ratio": adam_ratio, "betas": betas, "eps": eps}
        super().__init__(params, defaults | {"weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves all parameters that have a gradient.

        Args:
            closure: Evaluates the loss again, and returns it.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            for p in given:
                if _is_matrix(p):
                    self._move_matrix(p, group)
            self._move_others([p for p in given if not _is_matrix(p)], group)
        return loss

    def _move_matrix(self, p: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[p], p.grad
        assert gradient is not None
        if not state:
            state["average"] = torch.zeros_like(p)
        average: Tensor = state["average"]
        average.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(average, group["momentum"]).flatten(1)
        rows, columns = ahead.shape
        update = orthogonalize(ahead).mul_(max(1.0, rows / columns) ** 0.5)
        if group["weight_decay"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update.view(p.shape), alpha=-group["lr"])

    def _move_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        for p in parameters:
            if not self.state[p]:
                self.state[p] |= {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in parameters]
        on_cpu = all(p.device.type == "cpu" for p in parameters)
        adam(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=on_cpu,  # many small tensors: one kernel instead of ten calls for each
            foreach=not on_cpu,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"] * group["adam_ratio"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )


def _is_matrix(p: Tensor) -> bool:
    return p.ndim >= 2 and p.shape[0] >= SMALLEST and p[0].numel() >= SMALLEST


def orthogonalize(matrix: Tensor) -> Tensor:
    """Brings all singular values near 1 (0.7 to 1.2) by Newton-Schulz steps; those of a rank-deficient matrix stay 0.

    Args:
        matrix: ``(rows, columns)``.

    Returns:
        A matrix of the same shape and dtype.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    # The steps forgive rounding; on a GPU half precision is several times as fast.
    x = wide.to(torch.bfloat16) if matrix.is_cuda else wide
    # The average of a unit that died decays to denormal numbers, with which a product takes many times as long.
    x = hardshrink(x / (x.norm() + 1e-7), NEGLIGIBLE)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.addmm(a * x, torch.addmm(b * gram, gram, gram, alpha=c), x)
    x = x.to(matrix.dtype)
    return (x.mT if matrix.shape[0] > matrix.shape[1] else x).contiguous()
