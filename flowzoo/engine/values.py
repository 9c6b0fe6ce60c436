"""Values made of parameters: folded for one call, all modules of a kind together, or kept while a flow is frozen.

A deep flow is a long row of small modules of the same shapes, each of which makes its kernel or matrix from several
parameters by a dozen operations on tiny tensors. One by one these cost as much as the arithmetic on the images;
stacked, they are a dozen operations for the whole flow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from flowzoo.bijectors.linear import InvertibleConv1x1, InvertibleConv1x1LU
from flowzoo.nets.conv import FoldedConv2d
from flowzoo.ops.linalg import inverted

T = TypeVar("T")


class Folding(NamedTuple):
    """How modules of one kind are folded.

    Attributes:
        raw: The parameters of a module.
        constants: Whatever else the folding depends on; modules are folded together where it is equal.
        fold: Stacks ``(K, ...)`` of parameters to stacks of folded tensors, for K modules like this one.
    """

    raw: Callable[[Any], tuple[Tensor, ...]]
    constants: Callable[[Any], Hashable]
    fold: Callable[..., tuple[Tensor, ...]]


def _conv_raw(layer: FoldedConv2d) -> tuple[Tensor, ...]:
    """All but the weight, the largest: bias, edge weight and log-scale, without those that are not there."""
    return tuple(t for t in (layer.bias, layer.conv.edge_weight, layer.log_scale) if t is not None)


def has_indicator(layer: FoldedConv2d) -> bool:
    """Whether the edge is one more input channel, as where inputs are few, or one map added to all images."""
    return layer.conv.edge_weight is not None and layer.conv.weight.shape[1] < layer.conv.weight.shape[0]


def _fold_conv(layer: FoldedConv2d, bias: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Bias ``(K, O)``, scale ``(K, O)`` if there is one, and the edge: ``(K, O, k k)``, or ``(K, O, 1, k, k)``."""
    rest, folded = list(others), []
    if layer.log_scale is not None and layer.log_scale_factor is not None:
        folded.append(torch.exp(rest.pop() * layer.log_scale_factor))
    if rest:
        (edge,) = rest
        if has_indicator(layer):
            # Zero padding marks the outside of a channel of ones: edge at 1 - ones is a bias less edge at ones.
            bias, edge = bias + edge.sum(dim=(2, 3, 4)), -edge
        else:
            edge = edge.flatten(2)
        folded.append(edge * folded[0].view(*folded[0].shape, *(1,) * (edge.dim() - 2)) if folded else edge)
    return bias * folded[0] if layer.log_scale is not None else bias, *folded


def _mixing_raw(layer: InvertibleConv1x1) -> tuple[Tensor, ...]:
    own: tuple[Tensor, ...] = (
        (layer.lower, layer.log_diagonal, layer.upper, layer.sign, layer.permutation)
        if isinstance(layer, InvertibleConv1x1LU)
        else (layer.weight,)
    )
    return own if layer.actnorm is None else (*own, layer.actnorm.log_scale, layer.actnorm.bias)


def _fold_mixing(layer: InvertibleConv1x1, *raw: Tensor) -> tuple[Tensor, ...]:
    """Log-determinants ``(K,)`` in float64, matrices ``(K, C, C)``, and biases ``(K, C)`` with an ActNorm."""
    own = raw if layer.actnorm is None else raw[:-2]
    if isinstance(layer, InvertibleConv1x1LU):
        lower, log_diagonal, upper, sign, permutation = own
        eye = torch.eye(layer.channels, dtype=lower.dtype, device=lower.device)
        diagonal = torch.diag_embed(sign * log_diagonal.exp())
        matrix = permutation @ (torch.tril(lower, -1) + eye) @ (torch.triu(upper, 1) + diagonal)
        log_det = log_diagonal.double().sum(-1)
    else:
        (matrix,) = own
        log_det = torch.linalg.slogdet(matrix.double()).logabsdet
    if layer.actnorm is None:
        return log_det, matrix
    log_scale, shift = raw[-2] * layer.actnorm.log_scale_factor, raw[-1]
    matrix = matrix * log_scale.exp()[:, None]
    return log_det + log_scale.sum(1), matrix, (matrix @ shift[:, :, None])[:, :, 0]


CONV = Folding(
    _conv_raw,
    lambda layer: (layer.conv.edge_weight is None, has_indicator(layer), layer.log_scale_factor),
    _fold_conv,
)
MIXING = Folding(
    _mixing_raw,
    lambda layer: (type(layer), None if layer.actnorm is None else layer.actnorm.log_scale_factor),
    _fold_mixing,
)


class Values:
    """Folded tensors of modules for one call, or while a flow is frozen."""

    def __init__(self, members: Iterable[tuple[nn.Module, Folding]]) -> None:
        """Folds these modules, those of a kind together."""
        self._folded: dict[int, tuple[Tensor, ...]] = {}
        kinds: dict[Hashable, list[tuple[nn.Module, Folding, tuple[Tensor, ...]]]] = {}
        for module, folding in members:
            raw = folding.raw(module)
            shapes = tuple((t.shape, t.dtype, t.device) for t in raw)
            kinds.setdefault((id(folding), folding.constants(module), shapes), []).append(
                (module, folding, raw)
            )
        self._inverses: dict[int, Callable[[], tuple[Tensor, ...]]] = {}
        for kind in kinds.values():
            first, folding, _ = kind[0]
            stacks = folding.fold(
                first, *(torch.stack(ts) for ts in zip(*(raw for _, _, raw in kind), strict=True))
            )
            inverses = _lazy_inverses(stacks) if folding is MIXING else None
            for index, ((module, _, _), *own) in enumerate(
                zip(kind, *(s.unbind() for s in stacks), strict=True)
            ):
                self._folded[id(module)] = tuple(own)
                if inverses is not None:
                    self._inverses[id(module)] = _at(inverses, index)

    def of(self, module: nn.Module, folding: Folding) -> tuple[Tensor, ...]:
        """The folded tensors of a module; of one that was not folded with the others, folded now."""
        known = self._folded.get(id(module))
        if known is not None:
            return known
        return tuple(t[0] for t in folding.fold(module, *(t.unsqueeze(0) for t in folding.raw(module))))

    def inverse_of(self, module: nn.Module) -> tuple[Tensor, ...]:
        """Matrix and bias of the inverse of a folded map of pixels, without gradients; computed in float64."""
        return self._inverses[id(module)]()


def _lazy_inverses(stacks: Sequence[Tensor]) -> Callable[[], tuple[Tensor, ...]]:
    """Computes the inverse maps of all modules of a kind when the first is asked for."""
    known: list[tuple[Tensor, ...]] = []

    @torch.no_grad()
    def inverses() -> tuple[Tensor, ...]:
        if not known:
            _, matrix, *bias = stacks
            inverse = inverted(matrix.double())
            shift = [-(inverse @ b.double()[:, :, None])[:, :, 0] for b in bias]
            known.append(tuple(t.to(matrix.dtype) for t in (inverse, *shift)))
        return known[0]

    return inverses


def _at(stacks: Callable[[], tuple[Tensor, ...]], index: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: tuple(stack[index] for stack in stacks())


class Frozen:
    """Whatever a flow's calls made of its parameters while it is frozen, by key."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value for this key, made if it is the first time."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept
