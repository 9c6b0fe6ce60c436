"""Matrices of bijectors."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.errors import InputError


def inverted(matrix: Tensor) -> Tensor:
    """The inverse of ``(..., C, C)``.

    Raises:
        InputError: A matrix is singular.
    """
    try:
        inverse: Tensor = torch.linalg.inv(matrix)
    except RuntimeError as error:
        raise InputError(
            f"a {matrix.shape[-1]} x {matrix.shape[-1]} matrix of a bijector is singular and has no inverse: "
            "the weights are damaged, or training has diverged."
        ) from error
    return inverse
