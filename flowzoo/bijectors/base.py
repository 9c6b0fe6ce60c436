"""The base class of every bijector, its inverse view, and the tensor helpers that all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flowzoo.bijectors.kinds import EXACT, DirectionKind, LogDetKind, MapKind, weakest
from flowzoo.errors import InputError


class Bijector(nn.Module):
    """A batch-wise one-to-one map with a known log-determinant.

    ``forward`` is the direction of density evaluation, data to latent::

        z = f(x),    log_det = log |det df/dx|,    log p(x) = log p(z) + log_det

    A subclass writes ``_forward`` and ``_inverse``, each from a batch (and an optional context) to the mapped
    batch and a log-determinant of shape ``(B,)``; everything else, checks included, is here.

    Attributes:
        own_kind: How this bijector itself is computed, apart from those inside it: a class whose log-determinant is
            estimated, or whose inverse is solved for, says so here.
    """

    own_kind: MapKind = EXACT

    if TYPE_CHECKING:
        __call__: Callable[..., tuple[Tensor, Tensor]]

    @property
    def map_kind(self) -> MapKind:
        """How it is computed, as weak as the weakest of its parts."""
        parts = (part.map_kind for part in _bijectors_in(self))
        return weakest((self.own_kind, *parts))

    @property
    def log_det_kind(self) -> LogDetKind:
        """``"exact"``, ``"unbiased"`` or ``"biased"``."""
        return self.map_kind.log_det

    @property
    def inverse_kind(self) -> DirectionKind:
        """``"analytic"``, ``"sequential"`` or ``"numeric"``."""
        return self.map_kind.inverse

    @property
    def forward_passes(self) -> int:
        """Evaluations of a network, one after the other, that a density takes; the most of any part."""
        return self.map_kind.forward_passes

    @property
    def inverse_passes(self) -> int:
        """Evaluations of a network, one after the other, that a sample takes; the most of any part."""
        return self.map_kind.inverse_passes

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must define _forward")

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must define _inverse")

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps data to latent.

        Args:
            x: Floating-point batch ``(B, ...)``.
            context: What a conditional bijector is conditioned on, batch first; ignored by the others.

        Returns:
            ``z`` ``(B, ...)`` with as many elements as ``x``, and ``log_det`` ``(B,)`` in nats, float32 or wider.

        Raises:
            InputError: ``x`` is no floating-point batch, or its shape does not fit this bijector.
        """
        self._check_batch(x, "forward")
        z, log_det = self._forward(x, context)
        self.check_result(x, z, log_det, "forward")
        return z, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps latent back to data: the inverse of :meth:`forward`.

        Args:
            z: Floating-point batch ``(B, ...)`` as :meth:`forward` returns it.
            context: The same context that :meth:`forward` was given.

        Returns:
            ``x`` ``(B, ...)`` and ``log_det`` ``(B,)`` of *this* direction (the negative of forward's).

        Raises:
            InputError: ``z`` is no floating-point batch, or its shape does not fit this bijector.
        """
        self._check_batch(z, "inverse")
        x, log_det = self._inverse(z, context)
        self.check_result(z, x, log_det, "inverse")
        return x, log_det

    def waypoints(self, x: Tensor, context: Tensor | None, count: int) -> list[tuple[float, Tensor]]:
        """Where a batch is inside the map, for pictures of the way; nowhere, for a map that is one step.

        Args:
            x: Batch as :meth:`forward` takes it.
            context: As :meth:`forward` takes it.
            count: The most places that are wanted.

        Returns:
            Times between 0 and 1, ascending, and the batch at each, of the shape of ``x``.
        """
        return []

    def _check_batch(self, x: Tensor, direction: str) -> None:
        if not x.is_floating_point() or x.ndim < 2:
            raise InputError(
                f"{type(self).__name__}.{direction} got {_describe(x)}; expected a floating-point batch (B, ...). "
                "Images as uint8 go to Flow, which dequantizes them."
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"{type(self).__name__}.{direction} got {_describe(x)}; a flow computes in float32 or float64, since "
                "log-determinants need it. Call flow.float(); for speed use torch.autocast or "
                "flow.set_network_dtype(torch.bfloat16), which lower the networks inside."
            )

    def check_result(self, x: Tensor, y: Tensor, log_det: Tensor, direction: str) -> None:
        """Raises an InputError unless ``y`` and ``log_det`` can be what ``direction`` makes of ``x``."""
        if y.shape[0] != x.shape[0] or math.prod(y.shape[1:]) != math.prod(x.shape[1:]):
            raise InputError(
                f"{type(self).__name__}.{direction} made {_describe(y)} of {_describe(x)}; "
                "a bijector keeps the batch size and the number of elements."
            )
        if log_det.shape != x.shape[:1] or log_det.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"{type(self).__name__}.{direction} returned a log_det of {_describe(log_det)}; "
                f"expected shape ({x.shape[0]},) in float32 or float64."
            )


class Inverse(Bijector):
    """A bijector run backwards: forward(x) = f^-1(x)."""

    def __init__(self, bijector: Bijector) -> None:
        super().__init__()
        self.bijector = bijector

    @property
    def map_kind(self) -> MapKind:
        """The kind of the bijector inside, its directions exchanged."""
        return self.bijector.map_kind.reversed()

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.bijector.inverse(x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.bijector(z, context)


def _bijectors_in(module: nn.Module) -> Iterator[Bijector]:
    """The outermost bijectors below a module."""
    for child in module.children():
        if isinstance(child, Bijector):
            yield child
        else:
            yield from _bijectors_in(child)


def sum_per_item(x: Tensor) -> Tensor:
    """Sums everything but the batch: ``(B, ...)`` to ``(B,)``."""
    return x.sum(dim=tuple(range(1, x.ndim)))


def sum_terms(terms: list[Tensor]) -> Tensor:
    """The sum of log-determinants ``(B,)``."""
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)


def zero_log_det(x: Tensor) -> Tensor:
    """The log-determinant of a volume-preserving map: zeros ``(B,)``."""
    return x.new_zeros(x.shape[0])


def require_shape(owner: object, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raises an InputError unless the items of ``x`` have this shape; -1 stands for any size."""
    found = tuple(x.shape[1:])
    if len(found) != len(shape) or any(s not in (-1, f) for s, f in zip(shape, found, strict=True)):
        expected = ", ".join("any" if s == -1 else str(s) for s in shape)
        raise InputError(
            f"{type(owner).__name__} got {_describe(x)}; expected (B, {expected}). "
            "Check image_shape in the config against the images."
        )


def _describe(x: Tensor) -> str:
    return f"a {str(x.dtype).removeprefix('torch.')} tensor of shape {tuple(x.shape)}"
