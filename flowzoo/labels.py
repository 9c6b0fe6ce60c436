"""Class labels of a conditional flow: their checks, and the context that bijectors get."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from flowzoo.arguments import describe, few
from flowzoo.errors import ConfigError, InputError

NO_LABEL = -1
"""The label of an item that has none."""


class Labels:
    """The classes that a flow is conditioned on.

    Attributes:
        classes: K, their number; labels are 0 to K - 1.
        dropout: True if the flow is trained with some labels dropped, so that it models p(x) too.
    """

    def __init__(self, classes: int, *, dropout: bool = False) -> None:
        """Describes the classes.

        Args:
            classes: K, at least 2.
            dropout: Whether items without a label are modelled.
        """
        if classes < 2:
            raise ConfigError(f"classes is {classes!r}; expected a whole number of at least 2.")
        self.classes = classes
        self.dropout = dropout

    def require(self, y: object, n: int) -> Tensor:
        """Returns labels ``(n,)`` of a tensor of them, or of one number for all.

        Raises:
            InputError: They are no labels of this model, or not as many as items.
        """
        if not isinstance(y, bool) and isinstance(y, Integral):
            number = int(y)
            if not NO_LABEL <= number < self.classes:  # before a tensor is made, which could not hold it
                raise InputError(f"label is {number}; expected 0 to {self.classes - 1}.")
            y = torch.full((n,), number)
        if not isinstance(y, Tensor) or y.dtype not in _INTEGERS:
            raise InputError(
                f"labels are {describe(y)}; expected an int64 tensor ({n},) of 0 to {self.classes - 1}."
            )
        if y.shape != (n,):
            raise InputError(f"labels have shape {tuple(y.shape)}; expected ({n},), one for each item.")
        return y

    def check_values(self, y: Tensor) -> None:
        """Raises an InputError unless labels are in range; asks the device once."""
        least = NO_LABEL if self.dropout else 0
        wrong = (y < least) | (y >= self.classes)
        if bool(wrong.any()):
            rows = wrong.nonzero().flatten()
            values = sorted({int(v) for v in y[rows].tolist()})
            hint = f", or {NO_LABEL} for no label" if self.dropout else ""
            if NO_LABEL in values:  # as data sets mark what nobody has labelled
                hint = "; leave labels out for the average over all of them"
            raise InputError(
                f"labels hold {few(values)} (rows {few(rows.tolist())}); expected 0 to {self.classes - 1}{hint}."
            )

    def context(self, y: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        """One-hot rows ``(B, K)``; of an item without a label the row 1 / K, the mean of all."""
        y = y.to(device)
        steps = torch.arange(self.classes, device=device)
        one_hot = (y.unsqueeze(1) == steps).to(dtype)
        return torch.where(y.unsqueeze(1) < 0, one_hot.new_full((), 1 / self.classes), one_hot)


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8)
