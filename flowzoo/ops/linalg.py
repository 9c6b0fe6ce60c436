"""Matrices of bijectors."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from flowzoo.errors import InputError

ONNX_FLAGS = "torch.onnx._internal.exporter._flags"


def exporting_to_onnx() -> bool:
    """True while ``torch.onnx.export`` is at work, which has neither inverses nor determinants of matrices."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return False
    # torch's own answer is taken for False by the compiler through which one of its two exporters goes.
    if getattr(sys.modules.get(ONNX_FLAGS), "_is_onnx_exporting", False):
        return True
    # It is imported late, and takes a second.
    onnx = sys.modules.get("torch.onnx")
    return onnx is not None and bool(onnx.is_in_onnx_export())


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
