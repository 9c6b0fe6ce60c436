"""Layers whose spectral norm is held below a bound, by Lanczos's method from vectors saved with the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.tape import noted

TOLERANCE = 1e-3
"""A vector v of length 1 has converged when |W'W v - s^2 v| <= tolerance s^2, s = |W v|."""

MOST_ITERATIONS = 500
"""Products with W'W of one call at most."""

KRYLOV = 16
"""Dimensions of the Krylov spaces."""

KEPT = 4
"""Of them kept at a restart: the others are products with W'W between two looks at the tolerance."""

SPENT = 10
"""A Krylov space is exhausted when so many roundings of the image could make up the next vector."""

CERTIFIED_TOLERANCE = 1e-5
"""The same for the certificate, which is computed in float64."""

MOST_CERTIFIED_ITERATIONS = 20_000


class SpectralLayer(nn.Module):
    """A linear map W x + b of which the weight is W min(1, c / |W|), |W| its largest singular value.

    |W| is |W v| for a right singular vector v, or |W' v| for a left one, whichever is shorter (Behrmann et al., 2019,
    section 2.1; Gouk et al., 2018). v is a buffer: it is there before the first batch, and a saved model has it. In
    training mode a forward pass first brings it to convergence for the weights of now, as does a change to eval mode;
    in eval mode it is not written, and where it does not fit the weights (they were changed) the call iterates on a
    copy. The gradient holds v fixed, which is exact at a singular vector.

    A subclass says how W is applied.

    Attributes:
        coefficient: c, the largest norm.
        vector: v, one item of the input's or of the output's shape.
        transposed: Whether it is the output's.
    """

    vector: Tensor

    def __init__(self, weight: Tensor, size: tuple[int, ...], coefficient: float) -> None:
        """Makes the layer.

        Args:
            weight: A tensor of the weight's shape (outputs, inputs, ...), whose values are drawn here.
            size: Of the items, after their channels.
            coefficient: c.
        """
        super().__init__()
        outputs, inputs = weight.shape[:2]
        self.coefficient, self.transposed = coefficient, outputs < inputs
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        drawn = torch.randn(min(outputs, inputs), *size)
        self.register_buffer("vector", drawn / torch.linalg.vector_norm(drawn))

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """``W x`` of a batch."""
        raise NotImplementedError

    def apply_transpose(self, y: Tensor, weight: Tensor) -> Tensor:
        """``W' y`` of a batch."""
        raise NotImplementedError

    def transposed_map(self, weight: Tensor) -> Callable[[Tensor], Tensor]:
        """The function ``W' y`` of batches y, prepared for many of them."""
        return partial(self.apply_transpose, weight=weight)

    def image_of(self, vector: Tensor, weight: Tensor) -> Tensor:
        """``W v``, or ``W' v``, as a batch of one; its length is the norm of W for a singular vector."""
        image = self.apply_transpose if self.transposed else self.apply_weight
        return image(vector[None], weight)

    def run(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """``W x + b`` with the tensors given."""
        y = self.apply_weight(x, weight)
        return y + bias.reshape(-1, *(1,) * (y.ndim - 2))

    def forward(self) -> tuple[Tensor, Tensor]:
        """The normalised weight and the bias: what the map is made of, so that hooks of the layer can see it."""
        return self.normalised(), self.bias

    def normalised(self) -> Tensor:
        """The weight with a spectral norm of at most c."""
        found, _ = noted(self, self._converged, "vector")
        vector = self._converged() if found is None else found
        norm = torch.linalg.vector_norm(self.image_of(vector, self.weight))
        weight: Tensor = self.weight * (self.coefficient / norm.clamp(min=self.coefficient))
        return weight

    def train(self, mode: bool = True) -> SpectralLayer:
        """Sets the mode, and brings the vector to convergence for eval mode."""
        super().train(mode)
        if not mode:
            self.converge()
        return self

    def converge(self) -> None:
        """Brings the vector to convergence for the weights of now."""
        if not self.weight.is_meta:
            with torch.no_grad():
                self.vector.copy_(self._iterated(TOLERANCE, MOST_ITERATIONS, self.vector, self.weight))

    @torch.no_grad()
    def certified_norm(self) -> float:
        """|W| min(1, c / |W v|): the norm of the weight as it is used, computed anew in float64."""
        weight = self.weight.detach().double()
        found = []
        generator = torch.Generator(self.weight.device).manual_seed(0)
        fresh = torch.randn(self.vector.shape, generator=generator, dtype=weight.dtype, device=weight.device)
        for start in (self.vector.double(), fresh):
            vector = self._iterated(CERTIFIED_TOLERANCE, MOST_CERTIFIED_ITERATIONS, start, weight)
            found.append(float(torch.linalg.vector_norm(self.image_of(vector, weight))))
        used = torch.linalg.vector_norm(self.image_of(self._converged(), self.weight))
        return max(found) * min(1.0, self.coefficient / max(float(used), 1e-30))

    @torch.no_grad()
    def _converged(self) -> Tensor:
        """A vector that fits the weights of now; in training mode it is kept."""
        vector = self._iterated(TOLERANCE, MOST_ITERATIONS, self.vector, self.weight.detach())
        if self.training:
            self.vector.copy_(vector)
        # A copy: the buffer may be written before the backward pass of this call.
        return vector.clone()

    def _iterated(self, tolerance: float, most: int, vector: Tensor, weight: Tensor) -> Tensor:
        """The best vector of Krylov spaces of W'W, or of W W'; one within the tolerance comes back as it is."""
        there: Callable[[Tensor], Tensor] = partial(self.apply_weight, weight=weight)
        back: Callable[[Tensor], Tensor] = partial(self.apply_transpose, weight=weight)
        if self.transposed:
            # To many channels and back to few: turned around, the first of the two is up to nine times as fast.
            there, back = self.transposed_map(weight), there

        def mapped(v: Tensor) -> Tensor:
            return back(there(v.view_as(vector)[None])).flatten()

        length = torch.linalg.vector_norm(vector)
        tiny = torch.finfo(length.dtype).tiny
        start = (vector if bool((length - 1).abs() < 1e-3) else vector / length.clamp(min=tiny)).flatten()
        basis, images = start[None], mapped(start)[None]
        for _ in range(most // (KRYLOV - KEPT)):
            square = images[0] @ basis[0]
            if not bool(torch.linalg.vector_norm(images[0] - square * basis[0]) > tolerance * square):
                break
            basis, images = _refined(mapped, basis, images)
        return basis[0].view_as(vector)


def _refined(mapped: Callable[[Tensor], Tensor], basis: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """The best eigenvectors of a symmetric map in a Krylov space: Lanczos's method with thick restarts.

    Wu and Simon, 2000, by Rayleigh and Ritz with all images at hand. One vector alone would forget, at each restart,
    the next ones, from which it is hard to tell where singular values are close.

    Args:
        mapped: The map, of vectors.
        basis: Orthonormal vectors ``(K, N)``: the best of the space before, the largest eigenvalue first, or the start.
        images: What they are mapped to.

    Returns:
        At most ``KEPT`` such vectors, and their images.
    """
    new = images[0]
    while len(basis) < min(KRYLOV, basis.shape[1]):
        rounding = torch.finfo(new.dtype).eps * torch.linalg.vector_norm(new)
        for _ in range(2):  # rounding leaves one pass short of orthogonal
            new = new - basis.T @ (basis @ new)
        length = torch.linalg.vector_norm(new)
        # Of an exhausted space nothing but rounding is left: a vector of zeros adds nothing.
        basis = torch.cat((basis, torch.where(length > SPENT * rounding, new / length, 0.0)[None]))
        new = mapped(basis[-1])
        images = torch.cat((images, new[None]))
    small = basis @ images.T
    _, vectors = torch.linalg.eigh(small.to(torch.promote_types(small.dtype, torch.float32)))
    best = vectors[:, -KEPT:].flip(1).T.to(basis.dtype)
    lengths = torch.linalg.vector_norm(best @ basis, dim=1, keepdim=True)
    # Vectors of zeros stay zero, in every precision.
    lengths = lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
    return best @ basis / lengths, best @ images / lengths


class SpectralLinear(SpectralLayer):
    """``(B, in)`` to ``(B, out)``."""

    def __init__(self, inputs: int, outputs: int, coefficient: float) -> None:
        """Makes the layer, weights as torch's Linear."""
        super().__init__(torch.empty(outputs, inputs), (), coefficient)

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """See :class:`SpectralLayer`."""
        return F.linear(x, weight)

    def apply_transpose(self, y: Tensor, weight: Tensor) -> Tensor:
        """See :class:`SpectralLayer`."""
        return F.linear(y, weight.T)


class SpectralConv2d(SpectralLayer):
    """A convolution that keeps the size of its images, ``(B, in, H, W)`` to ``(B, out, H, W)``.

    Its norm is that of the whole linear map on images of this size, zero padding included, not that of the kernel as a
    matrix, which bounds it loosely. Of a 1x1 kernel the two are the same, and v is a vector of channels.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, size: tuple[int, int], coefficient: float
    ) -> None:
        """Makes the layer for images of ``size`` (height, width), weights as torch's Conv2d."""
        weight = torch.empty(outputs, inputs, kernel, kernel)
        super().__init__(weight, size if kernel > 1 else (1, 1), coefficient)
        self.padding = kernel // 2

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """See :class:`SpectralLayer`."""
        return F.conv2d(x, weight, padding=self.padding)

    def apply_transpose(self, y: Tensor, weight: Tensor) -> Tensor:
        """See :class:`SpectralLayer`."""
        return F.conv_transpose2d(y, weight, padding=self.padding)

    def transposed_map(self, weight: Tensor) -> Callable[[Tensor], Tensor]:
        """See :class:`SpectralLayer`: the convolution with the kernel turned around, which is the faster way."""
        turned = weight.transpose(0, 1).flip(2, 3).contiguous()
        return lambda y: F.conv2d(y, turned, padding=self.padding)


def converge(module: nn.Module) -> None:
    """Brings the vectors of every :class:`SpectralLayer` inside to convergence for the weights of now."""
    for part in module.modules():
        if isinstance(part, SpectralLayer):
            part.converge()
