"""Symbols to bits and back: binary decisions through a range coder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flowzoo.codec.mixtures import PROBABILITY_BITS, IntegerMixture, Interval
from flowzoo.errors import FlowzooError

WORD_BYTES = 4
"""A stream is a row of 32-bit words."""


class MissingCoder(FlowzooError):
    """The library with the range coder is not installed."""


def _constriction() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise MissingCoder(
            "compression needs the package constriction, which is not installed; pip install 'flowzoo[compress]'."
        ) from error
    return constriction


class Weigher:
    """Adds up the bits that symbols would take, without writing any.

    Attributes:
        bits: The sum of -log2 of the integer probabilities so far.
    """

    def __init__(self) -> None:
        self.bits = 0.0

    def write(self, distribution: IntegerMixture, symbols: Tensor) -> None:
        """Weighs symbols."""
        for upper, probability in _decisions(distribution, symbols):
            chosen = torch.where(upper, probability, 2**PROBABILITY_BITS - probability)
            self.bits += float(PROBABILITY_BITS * chosen.numel() - torch.log2(chosen.double()).sum())


class Encoder:
    """Writes symbols to a stream of its own."""

    def __init__(self) -> None:
        """Begins an empty stream.

        Raises:
            MissingCoder: constriction is not installed.
        """
        library = _constriction()
        self._coder = library.stream.queue.RangeEncoder()
        self._model = library.stream.model.Bernoulli(perfect=False)

    def write(self, distribution: IntegerMixture, symbols: Tensor) -> None:
        """Writes symbols, int64 of the distribution's shape."""
        for upper, probability in _decisions(distribution, symbols):
            decisions = upper.flatten().to(torch.int32).numpy()
            self._coder.encode(decisions, self._model, _as_floats(probability))

    def stream(self) -> bytes:
        """All that was written, as little-endian 32-bit words."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class Decoder:
    """Reads the symbols of a stream."""

    def __init__(self, stream: bytes) -> None:
        """Opens a stream that :meth:`Encoder.stream` gave.

        Raises:
            MissingCoder: constriction is not installed.
        """
        import numpy as np

        library = _constriction()
        self._coder = library.stream.queue.RangeDecoder(np.frombuffer(stream, dtype="<u4").astype(np.uint32))
        self._model = library.stream.model.Bernoulli(perfect=False)

    def read(self, distribution: IntegerMixture) -> Tensor:
        """Reads symbols of the distribution's shape, int64."""
        found: Interval | Tensor = distribution.start()
        while isinstance(found, Interval):
            probability = found.upper_half()
            decisions = self._coder.decode(self._model, _as_floats(probability))
            found = found.choose(torch.from_numpy(decisions).view(probability.shape) != 0)
        return found


def _decisions(distribution: IntegerMixture, symbols: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each halving of the window: whether each symbol is in the upper half, and that half's probability."""
    found: Interval | Tensor = distribution.start()
    while isinstance(found, Interval):
        upper = symbols >= found.low + found.width // 2
        yield upper, found.upper_half()
        found = found.choose(upper)


def _as_floats(probability: Tensor) -> Any:
    """Multiples of 2^-20 as the float64 that the coder takes; it resolves 2^-24, so that none is rounded."""
    return math.ldexp(1.0, -PROBABILITY_BITS) * probability.flatten().double().numpy()
