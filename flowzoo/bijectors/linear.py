"""Linear maps across channels or features: permutations, the invertible 1x1 convolution, whitening."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector, require_shape, zero_log_det
from flowzoo.bijectors.normalization import ActNorm
from flowzoo.errors import InputError
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.ops.autograd import without_autocast
from flowzoo.ops.linalg import exporting_to_onnx, inverted


class Permutation(Bijector):
    """A fixed permutation of dimension 1: z[:, i] = x[:, p(i)], log|det| = 0.

    The permutation is a buffer, so it is saved with the weights.
    """

    indices: Tensor
    inverse_indices: Tensor

    def __init__(self, indices: Tensor) -> None:
        """Makes the permutation from ``indices`` ``(C,)``."""
        super().__init__()
        self.register_buffer("indices", indices.clone())
        self.register_buffer("inverse_indices", torch.argsort(indices), persistent=False)

    @classmethod
    def reversal(cls, size: int) -> Permutation:
        """The reversal of ``size`` channels or features."""
        return cls(torch.arange(size - 1, -1, -1))

    @classmethod
    def random(cls, size: int, seed: int) -> Permutation:
        """A random permutation that depends on the seed alone."""
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.randperm(size, generator=generator, device="cpu"))

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.inverse_indices = torch.argsort(self.indices)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self._check(x)
        return x.index_select(1, self.indices), zero_log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self._check(z)
        return z.index_select(1, self.inverse_indices), zero_log_det(z)

    def _check(self, x: Tensor) -> None:
        require_shape(self, x, (self.indices.numel(), *(-1,) * (x.ndim - 2)))


class InvertibleConv1x1(Bijector):
    """z = W x at every pixel, log|det| = H W log|det W| (Glow, section 3.2).

    With an :class:`ActNorm`, z = W ((x + b) s): two maps in one matrix product. The log-determinant and the inverse
    matrix are computed in float64.
    """

    def __init__(self, channels: int, actnorm: ActNorm | None = None) -> None:
        """Makes a random rotation of ``channels`` channels."""
        super().__init__()
        self.channels = channels
        self.actnorm = actnorm
        self.reset_matrix(_random_rotation(channels))

    def reset_matrix(self, matrix: Tensor) -> None:
        """Makes the parameters that represent this matrix ``(C, C)``."""
        self.weight = nn.Parameter(matrix.contiguous())

    def matrix(self) -> Tensor:
        """W ``(C, C)``."""
        return self.weight

    def log_abs_det(self) -> Tensor:
        """log|det W|, a float64 scalar."""
        _require_not_onnx("determinant")
        log_abs_det: Tensor = torch.linalg.slogdet(self.weight.double()).logabsdet
        return log_abs_det

    def inverse_matrix(self) -> Tensor:
        """W^-1 ``(C, C)``, float64."""
        _require_not_onnx("inverse")
        return inverted(self.matrix().double())

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, x, (self.channels, *(-1,) * (x.ndim - 2)))
        log_det = (self.log_abs_det() * math.prod(x.shape[2:])).to(x.dtype).expand(x.shape[0])
        if self.actnorm is not None:
            x, term = self.actnorm(x)
            log_det = log_det + term
        return _mixed(x, self.matrix()), log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, z, (self.channels, *(-1,) * (z.ndim - 2)))
        x = _mixed(z, self.inverse_matrix().to(z.dtype))
        log_det = -(self.log_abs_det() * math.prod(z.shape[2:])).to(z.dtype).expand(z.shape[0])
        if self.actnorm is not None:
            x, term = self.actnorm.inverse(x)
            log_det = log_det + term
        return x, log_det


class InvertibleConv1x1LU(InvertibleConv1x1):
    """The 1x1 convolution as W = P L (U + diag(sign exp(s))), log|det W| = sum s (Glow, equation 10)."""

    permutation: Tensor
    sign: Tensor

    def reset_matrix(self, matrix: Tensor) -> None:
        """Decomposes the matrix ``(C, C)`` into the parameters."""
        permutation, lower, upper = torch.linalg.lu(matrix.double())
        diagonal = torch.diagonal(upper)
        self.register_buffer("permutation", permutation.to(matrix.dtype))
        self.register_buffer("sign", torch.sign(diagonal).to(matrix.dtype))
        self.lower = nn.Parameter(torch.tril(lower, -1).to(matrix.dtype))
        self.log_diagonal = nn.Parameter(torch.log(diagonal.abs()).to(matrix.dtype))
        self.upper = nn.Parameter(torch.triu(upper, 1).to(matrix.dtype))

    def matrix(self) -> Tensor:
        """W ``(C, C)``."""
        lower, upper = self._factors()
        return self.permutation @ lower @ upper

    def log_abs_det(self) -> Tensor:
        """log|det W|, a float64 scalar."""
        return self.log_diagonal.double().sum()

    def inverse_matrix(self) -> Tensor:
        """W^-1 ``(C, C)`` by two triangular solves, float64."""
        _require_not_onnx("inverse")
        lower, upper = (factor.double() for factor in self._factors())
        y = torch.linalg.solve_triangular(
            lower, self.permutation.double().t(), upper=False, unitriangular=True
        )
        solution: Tensor = torch.linalg.solve_triangular(upper, y, upper=True)
        return solution

    def _factors(self) -> tuple[Tensor, Tensor]:
        """L, and U with its diagonal."""
        eye = torch.eye(self.channels, dtype=self.lower.dtype, device=self.lower.device)
        upper = torch.triu(self.upper, 1) + torch.diag_embed(self.sign * self.log_diagonal.exp())
        return torch.tril(self.lower, -1) + eye, upper


class Whitening(Bijector, DataDependentInit):
    """ZCA whitening z = W (x - mean), fitted on the initialisation batch and fixed after it; log|det W| is constant.

    W = V (E + eps)^-1/2 V' for the batch covariance V E V'. It needs more images in the initialisation batch than
    dimensions, or eps decides.
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, features: int, eps: float = 1e-2) -> None:
        """Makes the identity on ``(B, features)``."""
        super().__init__()
        self.eps = eps
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("weight", torch.eye(features))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, x, (self.mean.numel(),))
        if self.wants_init():
            self._fit(x)
        log_det = torch.linalg.slogdet(self.weight.double()).logabsdet.to(x.dtype)
        with without_autocast():
            return (x - self.mean) @ self.weight.t(), log_det.expand(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, z, (self.mean.numel(),))
        log_det = torch.linalg.slogdet(self.weight.double()).logabsdet.to(z.dtype)
        x = torch.linalg.solve(self.weight.double(), z.double().t()).t().to(z.dtype) + self.mean
        return x, -log_det.expand(z.shape[0])

    @torch.no_grad()
    def _fit(self, x: Tensor) -> None:
        if x.shape[0] < 2:
            raise InputError(
                f"Whitening got {x.shape[0]} image to initialise from; give a batch of thousands."
            )
        mean = x.double().mean(dim=0)
        values, vectors = torch.linalg.eigh(torch.cov((x.double() - mean).t(), correction=0))
        self.mean.copy_(mean)
        self.weight.copy_((vectors * (values.clamp_min(0) + self.eps).rsqrt()) @ vectors.t())
        self.mark_initialized()


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    """The channels of every pixel of ``(B, C, ...)`` multiplied by the matrix."""
    with without_autocast():
        return torch.einsum("oc,bc...->bo...", matrix, x)


def _require_not_onnx(operation: str) -> None:
    if exporting_to_onnx():
        raise InputError(
            f"ONNX has no operation for the {operation} of a matrix, which a 1x1 convolution needs here; export "
            "flowzoo.bijectors.with_constant_matrices(flow) instead, a copy that holds it as a constant."
        )


def _random_rotation(channels: int) -> Tensor:
    gaussian = torch.randn(channels, channels)
    if gaussian.is_meta:
        # There are no values to decompose.
        return gaussian
    q, r = torch.linalg.qr(gaussian.double())
    rotation: Tensor = q * torch.sign(torch.diagonal(r))
    return rotation.to(gaussian.dtype)
