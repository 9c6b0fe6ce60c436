"""Ways to part a batch in two: the half that conditions a coupling and the half that is transformed.

``split`` gives ``(conditioner, transformed)``, ``merge`` puts them back, ``complement`` swaps their roles.
Packing partitions return two smaller tensors; the masked one keeps the full shape and zeroes the other half,
as the convolutions of RealNVP want it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from flowzoo.errors import InputError
from flowzoo.ops.layout import join_channels, split_channels


@dataclass(frozen=True)
class Partition(ABC):
    """A fixed bipartition of the elements of an item.

    Attributes:
        swap: False if the first half conditions and the second is transformed, True for the reverse.
    """

    swap: bool = False

    packs: ClassVar[bool] = True
    """Whether the halves hold their own elements alone, so that :meth:`select` has nothing to zero."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Parts ``x`` ``(B, ...)`` into ``(conditioner, transformed)``."""
        first, second = self._split(x)
        return (second, first) if self.swap else (first, second)

    def merge(self, conditioner: Tensor, transformed: Tensor) -> Tensor:
        """Puts the two halves together again: the inverse of :meth:`split`."""
        pair = (transformed, conditioner) if self.swap else (conditioner, transformed)
        return self._merge(*pair)

    def select(self, elementwise: Tensor) -> Tensor:
        """Zeroes what belongs to the conditioner in a tensor shaped like the transformed half."""
        return elementwise

    def complement(self) -> Self:
        """The partition with the roles of the halves exchanged."""
        return replace(self, swap=not self.swap)

    @abstractmethod
    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _merge(self, first: Tensor, second: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ChannelHalves(Partition):
    """First and second half of the channels: ``(B, C, H, W)`` to two ``(B, C/2, H, W)``.

    An odd channel goes to the first half. Works on ``(B, D)`` as well.
    """

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return split_channels(x, _middle(x))

    def _merge(self, first: Tensor, second: Tensor) -> Tensor:
        return join_channels(first, second)


def _middle(x: Tensor) -> int:
    if x.shape[1] < 2:
        raise InputError(
            f"ChannelHalves needs at least 2 channels; got shape {tuple(x.shape)}. Squeeze first."
        )
    return (x.shape[1] + 1) // 2


@dataclass(frozen=True)
class InterleavedFeatures(Partition):
    """Even and odd features of ``(B, D)``, as in NICE: two ``(B, D/2)``; an odd one goes to the first."""

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 0::2], x[:, 1::2]

    def _merge(self, first: Tensor, second: Tensor) -> Tensor:
        second = second.to(first.dtype)
        paired = torch.stack((first[:, : second.shape[1]], second), dim=2).flatten(1, 2)
        return paired if first.shape[1] == second.shape[1] else torch.cat((paired, first[:, -1:]), dim=1)


@dataclass(frozen=True)
class AlternateColumns(Partition):
    """Even and odd image columns: ``(B, C, H, W)`` to two ``(B, C, H, W/2)``.

    The official Flow++ code calls this its checkerboard split.
    """

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _require_even_width(self, x)
        return x[..., 0::2], x[..., 1::2]

    def _merge(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.stack((first, second), dim=-1).flatten(-2)


@dataclass(frozen=True)
class Checkerboard(Partition):
    """The two colours of a checkerboard, packed: ``(B, C, H, W)`` to two ``(B, C, H, W/2)``.

    The first half holds the pixels with even row + column; each row keeps its own, in order.
    """

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _require_even_width(self, x)
        return _exchange_odd_rows(x[..., 0::2], x[..., 1::2])

    def _merge(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.stack(_exchange_odd_rows(first, second), dim=-1).flatten(-2)


@dataclass(frozen=True)
class MaskedCheckerboard(Partition):
    """The two colours of a checkerboard at full resolution, the other colour zeroed (RealNVP, section 3.4).

    Both halves have the shape of ``x``; the first holds the pixels with even row + column.
    """

    packs: ClassVar[bool] = False

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mask = checkerboard_mask(x)
        return x * mask, x * (1 - mask)

    def _merge(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.where(checkerboard_mask(first).bool(), first, second)

    def select(self, elementwise: Tensor) -> Tensor:
        """Zeroes what belongs to the conditioner, by the mask."""
        mask = checkerboard_mask(elementwise)
        return elementwise * (mask if self.swap else 1 - mask)


def checkerboard_mask(x: Tensor) -> Tensor:
    """Ones where row + column is even, zeros elsewhere: ``(1, 1, H, W)`` in the dtype of ``x``."""
    rows = torch.arange(x.shape[-2], device=x.device)[:, None]
    columns = torch.arange(x.shape[-1], device=x.device)[None, :]
    return ((rows + columns + 1) % 2).to(x.dtype)[None, None]


def _exchange_odd_rows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    odd = (torch.arange(a.shape[-2], device=a.device) % 2).bool()[:, None]
    return torch.where(odd, b, a), torch.where(odd, a, b)


def _require_even_width(owner: Partition, x: Tensor) -> None:
    if x.ndim != 4 or x.shape[-1] % 2:
        raise InputError(
            f"{type(owner).__name__} got shape {tuple(x.shape)}; expected (B, C, H, W) with an even width."
        )
