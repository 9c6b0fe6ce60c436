"""An integer discrete flow in integer arithmetic: what compression runs on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flowzoo.bijectors import Squeeze
from flowzoo.codec import IntegerMixture, IntegerNetwork
from flowzoo_idf.layers import IntegerCoupling, IntegerDiscreteFlow, IntegerSplit, parts_of
from flowzoo_idf.networks import ACTIVATION_LIMIT, CouplingNetwork
from flowzoo_idf.relative import COEFFICIENT_LIMIT, nearest_sum, pairs

__all__ = ["IntegerFlow"]

FRACTION_BITS = 16
"""Networks take and give integers in units of 2^-16."""


class IntegerFlow:
    """The integer form of an :class:`flowzoo_idf.layers.IntegerDiscreteFlow`; see ``flowzoo.codec.IntegerModel``."""

    def __init__(self, flow: IntegerDiscreteFlow, batch_size: int) -> None:
        """Rounds the flow's parameters.

        Args:
            flow: The flow.
            batch_size: Images that its networks see at a time.
        """
        self.window_bits = flow.window.bit_length() - 1
        self.image_shape = flow.image_shape
        self.batch_size = batch_size
        self.mixtures = flow.top.mixtures
        self.levels = [[_Split(split, self) for split in flow.splits(level)] for level in flow.levels]
        top = flow.top.raw.detach().to("cpu", torch.float64) * (flow.top.gain * 2.0**FRACTION_BITS)
        self.top = torch.round(top).to(torch.int64)[None]

    def encode(self, images: Tensor, write: Callable[[IntegerMixture, Tensor], None]) -> None:
        """Writes images, int64 ``(B, C, H, W)``; see ``flowzoo.codec.IntegerModel``."""
        found: list[tuple[_Split, Tensor, Tensor]] = []
        x = images
        for level in self.levels:
            x = _squeeze(x)
            for split in level:
                x, out = split.translate(x)
                found.append((split, x, out))
        write(self._top(len(images)), x)
        for split, kept, out in reversed(found):
            split.write(kept, out, write)

    def decode(self, count: int, read: Callable[[IntegerMixture], Tensor]) -> Tensor:
        """Reads images, int64 ``(B, C, H, W)``; see ``flowzoo.codec.IntegerModel``."""
        x = read(self._top(count))
        for level in reversed(self.levels):
            for split in reversed(level):
                x = split.translate_back(x, split.read(x, read))
            x = _unsqueeze(x)
        return x

    def _top(self, count: int) -> IntegerMixture:
        return IntegerMixture(self.top, self.mixtures, self.window_bits, count)

    def network(self, net: CouplingNetwork) -> IntegerNetwork:
        """A network's integer form; it sees the window as -2 to 2."""
        return IntegerNetwork(net.convolutions, input_limit=2.0, activation_limit=ACTIVATION_LIMIT)


class _Split:
    """The integer form of a split."""

    def __init__(self, split: IntegerSplit, owner: IntegerFlow) -> None:
        self.kept = split.kept
        self.owner = owner
        self.window_bits = owner.window_bits
        self.out = split.out
        self.relative = split.relative
        self.prior = owner.network(split.prior)
        self.couplings = [
            owner.network(coupling.net)
            for coupling in split.couplings
            if isinstance(coupling, IntegerCoupling)
        ]

    def write(self, kept: Tensor, out: Tensor, write: Callable[[IntegerMixture, Tensor], None]) -> None:
        """Writes what leaves given what stays; with relative means one channel after the other."""
        raw = self._run(self.prior, kept)
        if not self.relative:
            write(self._mixture(raw), out)
            return
        for channel in range(self.out):
            write(self._relative(raw, kept, out[:, :channel]), out[:, channel : channel + 1])

    def read(self, kept: Tensor, read: Callable[[IntegerMixture], Tensor]) -> Tensor:
        """Reads what :meth:`write` wrote."""
        raw = self._run(self.prior, kept)
        if not self.relative:
            return read(self._mixture(raw))
        out = kept[:, :0]
        for _ in range(self.out):
            out = torch.cat((out, read(self._relative(raw, kept, out))), dim=1)
        return out

    def _mixture(self, raw: Tensor) -> IntegerMixture:
        return IntegerMixture(raw, self.owner.mixtures, self.window_bits, len(raw))

    def _relative(self, raw: Tensor, kept: Tensor, known: Tensor) -> IntegerMixture:
        """The distribution of the first channel ``(B, 1, H, W)`` that is not known yet."""
        channel = known.shape[1]
        logits, means, log_scales, coefficients = parts_of(raw, self.owner.mixtures, self.out)
        around = nearest_sum(kept, self.out)
        # Means are in quarters of the window: W times a sum of four levels, and an eighth of the network's units.
        mean = (around[:, channel] << (FRACTION_BITS - self.window_bits)) + (means[:, :, channel] >> 3)
        limit = int(COEFFICIENT_LIMIT) << FRACTION_BITS
        for index, (later, earlier) in enumerate(pairs(self.out)):
            if later == channel:
                above = 4 * known[:, earlier] - around[:, earlier]
                mean = mean + (coefficients[:, :, index].clamp(-limit, limit) * above >> self.window_bits)
        each = torch.stack((logits[:, :, channel], mean, log_scales[:, :, channel])).flatten(0, 1)
        return self._mixture(each.transpose(0, 1))

    def translate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, out = x[:, : self.kept], x[:, self.kept :]
        for index, net in enumerate(self.couplings):
            if index % 2:
                out = self._wrapped(out + self._translation(net, kept))
            else:
                kept = self._wrapped(kept + self._translation(net, out))
        return kept, out

    def translate_back(self, kept: Tensor, out: Tensor) -> Tensor:
        for index, net in reversed(list(enumerate(self.couplings))):
            if index % 2:
                out = self._wrapped(out - self._translation(net, kept))
            else:
                kept = self._wrapped(kept - self._translation(net, out))
        return torch.cat((kept, out), dim=1)

    def _translation(self, net: IntegerNetwork, x: Tensor) -> Tensor:
        return (self._run(net, x) + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS

    def _run(self, net: IntegerNetwork, x: Tensor) -> Tensor:
        centred = (x << (FRACTION_BITS + 2 - self.window_bits)) - (2 << FRACTION_BITS)
        return net(centred, self.owner.batch_size)

    def _wrapped(self, x: Tensor) -> Tensor:
        # Of a power of two, so that the low bits are the remainder, of negative integers too.
        wrapped: Tensor = x & ((1 << self.window_bits) - 1)
        return wrapped


_SQUEEZE = Squeeze("checkerboard")


def _squeeze(x: Tensor) -> Tensor:
    # A rearrangement, exact for integers in float64.
    return _SQUEEZE(x.double())[0].to(torch.int64)


def _unsqueeze(x: Tensor) -> Tensor:
    return _SQUEEZE.inverse(x.double())[0].to(torch.int64)
