"""Matrices as constants, for formats that can compute neither an inverse nor a determinant, such as ONNX."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from flowzoo.bijectors.linear import InvertibleConv1x1
from flowzoo.ops.linalg import inverted

M = TypeVar("M", bound=nn.Module)


class ConstantConv1x1(InvertibleConv1x1):
    """The 1x1 convolution z = W x with W, its inverse and log|det W| as constants, log|det| = H W log|det W|.

    Both are computed in float64 when it is made.
    """

    constant: Tensor
    constant_inverse: Tensor
    constant_log_det: Tensor

    @classmethod
    def of(cls, layer: InvertibleConv1x1) -> ConstantConv1x1:
        """The same map as a layer's, which shares that layer's ActNorm."""
        constant = cls(layer.channels, layer.actnorm)
        constant.reset_matrix(layer.matrix().detach())
        return constant.train(layer.training)

    def reset_matrix(self, matrix: Tensor) -> None:
        """Makes the constants of this matrix ``(C, C)``."""
        wide = matrix.double()
        self.register_buffer("constant", matrix.contiguous())
        self.register_buffer("constant_inverse", inverted(wide))
        self.register_buffer("constant_log_det", torch.linalg.slogdet(wide).logabsdet)

    def matrix(self) -> Tensor:
        """W ``(C, C)``."""
        return self.constant

    def log_abs_det(self) -> Tensor:
        """log|det W|, a float64 scalar."""
        return self.constant_log_det.double()

    def inverse_matrix(self) -> Tensor:
        """W^-1 ``(C, C)``, float64."""
        return self.constant_inverse.double()


def with_constant_matrices(module: M) -> M:
    """A copy in eval mode whose 1x1 convolutions hold their matrices, inverses and log-determinants as constants.

    It computes the same and can be exported to formats that know no matrix inverse, such as ONNX. Weights that
    change later in ``module`` do not change it.

    Args:
        module: A flow, a bijector, or any module with 1x1 convolutions inside.
    """
    if isinstance(module, InvertibleConv1x1):
        return ConstantConv1x1.of(copy.deepcopy(module)).eval()  # type: ignore[return-value]
    constant = copy.deepcopy(module).eval()
    for parent in constant.modules():
        for name, child in list(parent.named_children()):
            if isinstance(child, InvertibleConv1x1):
                setattr(parent, name, ConstantConv1x1.of(child))
    return constant
