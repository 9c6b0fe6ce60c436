"""Sums that stay exact enough: streaming log-mean-exp, and mean with standard error, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


class LogMeanExp:
    """log (1/k) sum exp(v_i), one term at a time, in constant memory and without overflow."""

    def __init__(self) -> None:
        self._maximum: Tensor | None = None
        self._sum: Tensor | None = None
        self.count = 0

    def add(self, values: Tensor) -> None:
        """Adds one term for each item: any floating tensor ``(B,)``, the same B each time."""
        values = values.double()
        self.count += 1
        if self._maximum is None or self._sum is None:
            self._maximum, self._sum = values, torch.ones_like(values)
            return
        maximum = torch.maximum(self._maximum, values)
        # -inf minus -inf is not a number; a term of probability zero adds nothing.
        safe = torch.where(maximum.isinf(), torch.zeros_like(maximum), maximum)
        self._sum = self._sum * (self._maximum - safe).exp() + (values - safe).exp()
        self._maximum = maximum

    def result(self) -> Tensor:
        """The value, float64 ``(B,)``."""
        if self._maximum is None or self._sum is None:
            raise ValueError("LogMeanExp has no terms yet")
        return self._maximum + (self._sum / self.count).log()


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over items with its standard error (sample standard deviation over sqrt(n))."""

    value: float
    stderr: float
    count: int


def mean_and_stderr(values: Tensor) -> Mean:
    """Mean and standard error of ``(N,)``, in float64, summed in the order of the items; NaN if any is not finite."""
    values = values.double().cpu()
    count = values.numel()
    if not bool(values.isfinite().all()):
        return Mean(float("nan"), float("nan"), count)
    mean = math.fsum(values.tolist()) / count
    if count < 2:
        return Mean(mean, float("nan"), count)
    variance = math.fsum((v - mean) * (v - mean) for v in values.tolist()) / (count - 1)
    return Mean(mean, math.sqrt(variance / count), count)


def nats_to_bpd(log_prob: Tensor, dims: int) -> Tensor:
    """-log P(x) / (D ln 2), float64, from log-probabilities ``(B,)`` in nats."""
    return log_prob.double() / (-dims * math.log(2.0))
