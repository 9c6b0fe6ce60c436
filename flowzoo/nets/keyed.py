"""Random numbers that are functions of their key, so that nothing else can change them.

They are made by Philox4x64-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011), with integer arithmetic: the same bits on every machine, for every batch size, order and number of
processes. Dequantization noise has a key (seed, item, sample); a module that draws numbers inside a flow, for an
estimate or an augmentation, adds the number of its layer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from flowzoo.errors import InputError
from flowzoo.nets.tape import noted, original_of

DrawKind = Literal["uniform", "normal", "rademacher", "none"]

EVALUATION_KEY = 0x666C6F777A6F6F  # "flowzoo"

MAX_SEED = (1 << 64) - 1
"""The largest seed, of an evaluation, a training or torch's generators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Names the random numbers that modules draw in one evaluation of a batch.

    Attributes:
        seed: Of the whole evaluation, 0 to 2^64 - 1.
        items: A number for each item of the batch, such as its position in the data set.
        probe: Which repetition of an estimate this is.
        sample: Which draw of noise around the bijector this is.
    """

    seed: int
    items: Sequence[int]
    probe: int = 0
    sample: int = 0

    def part(self, first: int, last: int) -> Keys:
        """The keys of some items of the batch, one after the other."""
        return replace(self, items=self.items[first:last])


class _Current(threading.local):
    keys: Keys | None = None


_CURRENT = _Current()


@contextmanager
def keyed_draws(keys: Keys | None) -> Iterator[None]:
    """A context in which :func:`draw` is a function of these keys; None leaves things as they are."""
    before = _CURRENT.keys
    _CURRENT.keys = before if keys is None else keys
    try:
        yield
    finally:
        _CURRENT.keys = before


def number_layers(root: nn.Module) -> None:
    """Gives every module of a model the number by which its draws are keyed: its place in ``root.modules()``."""
    for number, module in enumerate(root.modules()):
        module.__dict__["layer_number"] = number


def draw(
    module: nn.Module,
    kind: DrawKind,
    shape: tuple[int, ...],
    like: Tensor,
    *,
    name: str = "",
    per: Literal["probe", "sample"] = "probe",
) -> Tensor:
    """Standard random numbers for each item of a batch.

    Inside :func:`keyed_draws` they depend on seed, item, layer, name and probe (or sample) alone; elsewhere they
    come from torch's own generator. A backward pass that evaluates the module again gets the same numbers.

    Args:
        module: The module that draws.
        kind: ``"uniform"`` on [0, 1), ``"normal"``, or ``"rademacher"``: -1 or 1.
        shape: Of one item.
        like: A batch ``(B, ...)``, of which device and dtype are taken.
        name: Which of several draws of one module this is.
        per: Whether they change with the probe of an estimate or with the sample of the noise.

    Returns:
        ``(B, *shape)``.

    Raises:
        InputError: The keys in force are for another number of items.
    """

    def make() -> Tensor:
        return _drawn(module, kind, shape, like, name, per)

    known, _ = noted(module, make, "draw/" + name)
    return make() if known is None else known


def _drawn(
    module: nn.Module,
    kind: DrawKind,
    shape: tuple[int, ...],
    like: Tensor,
    name: str,
    per: Literal["probe", "sample"],
) -> Tensor:
    keys = _CURRENT.keys
    full = (like.shape[0], *shape)
    if keys is None:
        source = torch.randn if kind == "normal" else torch.rand
        values = source(full, device=like.device, dtype=like.dtype)
        return values.sub(0.5).sign_().add_(0.5).sign_() if kind == "rademacher" else values
    if len(keys.items) != like.shape[0]:
        raise InputError(
            f"{type(module).__name__} draws for {like.shape[0]} items under keys for {len(keys.items)}; "
            "expected a key for each item of the batch."
        )
    layer = getattr(original_of(module), "layer_number", 0)
    count = keys.probe if per == "probe" else keys.sample
    # Dequantization noise has stream 0.
    stream = 1 + layer + (_hash(name) << 32)
    return keyed_noise(kind, shape, keys.seed, keys.items, count, stream=stream, dtype=like.dtype).to(
        like.device
    )


def keyed_noise(
    kind: DrawKind,
    shape: tuple[int, ...],
    seed: int,
    indices: Iterable[int],
    sample: int,
    *,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard noise for items, keyed by (seed, item, sample).

    Args:
        kind: ``"uniform"`` on [0, 1) in steps of 2^-24, exact in float32; ``"normal"`` by the inverse
            distribution function in float64; ``"rademacher"``; ``"none"``: zeros.
        shape: Of one item.
        seed: Seed of the evaluation, 0 to 2^64 - 1.
        indices: A number for each item, such as its position in its split.
        sample: Which of the samples of each item, counted from 0.
        stream: An unrelated stream of numbers for each; 0 is dequantization noise.
        dtype: Of the result; the same numbers, rounded.

    Returns:
        Noise ``(B, *shape)`` on the CPU.

    Raises:
        InputError: The seed is out of range.
    """
    check_seed(seed)
    size = math.prod(shape)
    if kind == "none":
        return torch.zeros(len(list(indices)), *shape, dtype=dtype)
    rows = [_bits(seed, int(index), sample, stream, size) for index in indices]
    bits = np.stack(rows) if rows else np.empty((0, size), np.uint64)
    if kind == "uniform":
        values = torch.from_numpy((bits >> np.uint64(40)).astype(np.float64) * 2.0**-24)
    elif kind == "rademacher":
        values = torch.from_numpy((bits >> np.uint64(63)).astype(np.float64) * 2.0 - 1.0)
    else:
        centres = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        values = torch.special.ndtri(torch.from_numpy(centres))
    return values.to(dtype).reshape(len(rows), *shape)


def check_seed(seed: int) -> int:
    """Returns a seed that is one.

    Raises:
        InputError: It is below 0 or above 2^64 - 1, where it would stand for another one, or for none.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"The seed {seed:.6g} is out of range; give one from 0 to 2^64 - 1.")
    return seed


def _bits(
    seed: int, index: int, sample: int, stream: int, size: int
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """64 random bits for each of ``size`` numbers: key (constant, seed), counter (.., stream, sample, index)."""
    key = np.array([EVALUATION_KEY, seed], dtype=np.uint64)
    counter = np.array([0, stream & MAX_SEED, sample & MAX_SEED, index & MAX_SEED], dtype=np.uint64)
    generator = np.random.Philox(key=key, counter=counter)
    # raw bits are the generator's own stream: numpy's distributions may change, these may not.
    return np.asarray(generator.random_raw(size), dtype=np.uint64)


def _hash(name: str) -> int:
    """31 bits of a name (FNV-1a)."""
    value = 2166136261
    for byte in name.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value >> 1 if name else 0
