"""Linear maps across channels or features: permutations, the invertible 1x1 convolution, whitening."""

from __future__ import annotations

import math
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector, require_shape, zero_log_det
from flowzoo.bijectors.layout import channel_rows
from flowzoo.bijectors.mixing import MixingStep, PixelMap, mixed, pull_rows
from flowzoo.bijectors.normalization import ActNorm
from flowzoo.bijectors.refolding import folded_apart
from flowzoo.bijectors.reversal import Pull, Reversed
from flowzoo.bijectors.rows import Row, Step, at_constants
from flowzoo.errors import InputError
from flowzoo.nets.folding import Folds
from flowzoo.nets.initialization import DataDependentInit


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


class InvertibleConv1x1(Bijector, Folds):
    """z = W x at every pixel, log|det| = H W log|det W| (Glow, section 3.2).

    An :class:`ActNorm` given to it is folded into the convolution, z = W ((x + b) s), which spares a pass over the
    activations. The inverse matrix is computed in float64. In eval mode both directions are kept until the weights
    change.
    """

    def __init__(self, channels: int, actnorm: ActNorm | None = None) -> None:
        """Makes a random rotation of ``channels`` channels."""
        super().__init__()
        self.channels = channels
        self.actnorm = actnorm
        self.reset_matrix(_random_rotation(channels))

    def reset_matrix(self, matrix: Tensor) -> None:
        """Makes the parameters that represent this matrix ``(C, C)``."""
        self.weight = nn.Parameter(matrix)

    def matrix_parameters(self) -> tuple[Tensor, ...]:
        """The parameters that represent W."""
        return (self.weight,)

    def matrix(self, *parameters: Tensor) -> Tensor:
        """W of such parameters, ``(..., C, C)``."""
        (weight,) = parameters
        return weight

    def log_abs_det(self, *parameters: Tensor) -> Tensor:
        """log|det W| of such parameters, ``(...)``, computed in float64."""
        (weight,) = parameters
        log_abs_det: Tensor = torch.linalg.slogdet(weight.double()).logabsdet
        return log_abs_det

    def inverse_matrix(self) -> Tensor:
        """W^-1 ``(C, C)``, float64."""
        inverse: Tensor = torch.linalg.inv(self.matrix(*self.matrix_parameters()).double())
        return inverse

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, x, (self.channels, *(-1,) * (x.ndim - 2)))
        if self.actnorm is not None and self.actnorm.wants_init():
            self.actnorm.initialize_from(x)
        return Row((self._mixing(),)).run(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, z, (self.channels, *(-1,) * (z.ndim - 2)))
        return self._pixel_inverse().apply(z)

    def step(self, like: Tensor, inverse: bool = False) -> Step | None:
        """The map of pixels; its inverse only without gradients."""
        if like.shape[1] != self.channels or (self.actnorm is not None and self.actnorm.wants_init()):
            return None
        if inverse:
            return None if torch.is_grad_enabled() else MixingStep(self._pixel_inverse())
        return self._mixing()

    def _mixing(self) -> MixingStep:
        if torch.is_grad_enabled():
            self.forget()
            return MixingStep(self._folded())
        return MixingStep(self.cached("forward", self.raw, self._folded))

    def _pixel_inverse(self) -> PixelMap:
        return self.cached("inverse", self.raw, self._fold_inverse)

    def reverse(self, z: Tensor, context: Tensor | None, pull: Pull) -> Reversed:
        """In closed form: x = M^-1 (z - b), and the gradients at x, M and b of z = M x + b."""
        if self.together is None:
            with folded_apart(self, sink=pull.sink):
                return self.reverse(z, context, pull)
        _, matrix, *bias = self.together
        inverse, *shift = self.prepared
        x = mixed(z, inverse, *shift)
        for_constant = at_constants(pull.grad_log_det, math.prod(x.shape[2:]))
        gradients = [for_constant, *pull_rows(channel_rows(x), channel_rows(pull.grad_z), bool(bias))]
        for leaf, gradient in zip(self.together, gradients, strict=False):
            if leaf.requires_grad:
                pull.sink.add(leaf, gradient)
        return Reversed(x, mixed(pull.grad_z, matrix.detach().t()), None)

    def prepare(self, *folded: Tensor) -> tuple[Tensor, ...]:
        """Stacks of the inverse maps: matrices ``(K, C, C)``, computed in float64, and biases ``(K, C)``."""
        _, matrix, *bias = folded
        inverse = torch.linalg.inv(matrix.double())
        shift = [-(inverse @ b.double()[:, :, None])[:, :, 0] for b in bias]
        return tuple(t.to(matrix.dtype) for t in (inverse, *shift))

    def raw(self) -> tuple[Tensor, ...]:
        """What represents W, and the ActNorm's log-scale and bias."""
        own = self.matrix_parameters()
        return own if self.actnorm is None else (*own, self.actnorm.log_scale, self.actnorm.bias)

    def constants(self) -> Hashable:
        """What tells apart modules of the same shapes."""
        return None if self.actnorm is None else self.actnorm.log_scale_factor

    def fold(self, *raw: Tensor) -> tuple[Tensor, ...]:
        """Stacks of parameters to stacks of log-determinants ``(K,)``, matrices ``(K, C, C)`` and biases ``(K, C)``."""
        own = raw if self.actnorm is None else raw[:-2]
        matrix, log_det = self.matrix(*own), self.log_abs_det(*own)
        if self.actnorm is None:
            return log_det, matrix
        log_scale, shift = raw[-2] * self.actnorm.log_scale_factor, raw[-1]
        matrix = matrix * log_scale.exp()[:, None]
        return log_det + log_scale.sum(1), matrix, (matrix @ shift[:, :, None])[:, :, 0]

    def _folded(self) -> PixelMap:
        log_det, matrix, *bias = self.folded()
        return PixelMap(log_det, matrix, bias[0] if bias else None)

    def _fold_inverse(self) -> PixelMap:
        own = self.matrix_parameters()
        matrix, log_det = self.inverse_matrix(), self.log_abs_det(*own)
        if self.actnorm is None:
            return PixelMap(-log_det, matrix.to(own[0].dtype), None)
        scale, shift = self.actnorm.scale_and_bias()
        matrix = matrix / scale.double()[:, None]
        log_det = log_det + self.actnorm.log_det_per_pixel()
        return PixelMap(-log_det, matrix.to(own[0].dtype), -shift)


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

    def matrix_parameters(self) -> tuple[Tensor, ...]:
        """What represents W: L, s, U, the signs and P."""
        return self.lower, self.log_diagonal, self.upper, self.sign, self.permutation

    def matrix(self, *parameters: Tensor) -> Tensor:
        """W of such parameters, ``(..., C, C)``."""
        lower, upper = self._factors(*parameters)
        return parameters[-1] @ lower @ upper

    def log_abs_det(self, *parameters: Tensor) -> Tensor:
        """log|det W| of such parameters, ``(...)``, computed in float64."""
        return parameters[1].double().sum(-1)

    def inverse_matrix(self) -> Tensor:
        """W^-1 ``(C, C)`` by two triangular solves, float64."""
        lower, upper = (factor.double() for factor in self._factors(*self.matrix_parameters()))
        y = torch.linalg.solve_triangular(
            lower, self.permutation.double().t(), upper=False, unitriangular=True
        )
        solution: Tensor = torch.linalg.solve_triangular(upper, y, upper=True)
        return solution

    def _factors(
        self, lower: Tensor, log_diagonal: Tensor, upper: Tensor, sign: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor]:
        eye = torch.eye(self.channels, dtype=lower.dtype, device=lower.device)
        upper = torch.triu(upper, 1) + torch.diag_embed(sign * log_diagonal.exp())
        return torch.tril(lower, -1) + eye, upper


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


def _random_rotation(channels: int) -> Tensor:
    gaussian = torch.randn(channels, channels)
    if gaussian.is_meta:
        # There are no values to decompose; shape and order in memory are those of what follows.
        return gaussian.t()
    q, r = torch.linalg.qr(gaussian.double())
    rotation: Tensor = q * torch.sign(torch.diagonal(r))
    return rotation.to(gaussian.dtype)
