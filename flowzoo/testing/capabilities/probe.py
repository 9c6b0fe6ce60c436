"""Shared by all capability checks: a fixed batch, the plain reference, finite differences, and comparisons."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import get_args

import torch
from torch import Tensor

from flowzoo import engine
from flowzoo.bijectors.chain import MemoryMode
from flowzoo.flow import Flow
from flowzoo.nets.keyed import Keys, keyed_draws
from flowzoo.testing.randomize import random_data, random_labels
from flowzoo.testing.subject import NotAsked

MODES: tuple[MemoryMode, ...] = get_args(MemoryMode)

STEP = 1e-6
"""Half the distance of the two evaluations of a finite difference."""

NOISE_STEP = 1e-4
"""The same for noise, of which a whole unit is one grey level."""

EXACT = 1e-9
"""Largest relative difference of two ways to the same number in float64."""

NUMERIC = 1e-5
"""Largest relative difference of a derivative from a finite difference in float64."""


class Probe:
    """A flow and the batch that it is tried on.

    Attributes:
        flow: The flow.
        x: Images ``uint8 (n, C, H, W)``, or vectors ``(n, D)``.
        noise: Noise of the kind that the flow takes, the shape of ``x``; of vectors zeros, a displacement.
        y: Labels ``(n,)`` of a conditional flow, or None.
        keys: Of the random numbers that bijectors and augmentation draw.
    """

    def __init__(self, flow: Flow, n: int = 2, seed: int = 0) -> None:
        self.flow = flow
        self.x = random_data(flow, n, seed)
        self.y = random_labels(flow, n)
        self.keys = Keys(seed=seed, items=range(n))
        drawn = flow.draw_noise(n, generator=torch.Generator().manual_seed(seed))
        # Uniform noise stays away from the border of its bin, so that finite differences may move it.
        self.noise = 0.01 + 0.98 * drawn if flow.noise_kind == "uniform" else drawn

    def log_prob(self, noise: Tensor | None = None) -> Tensor:
        """Log-probability ``(n,)`` under this noise, or the batch's own."""
        noise = self.noise if noise is None else noise
        return self.flow.log_prob(self.x, self.y, noise=noise, keys=self.keys)

    def arguments(self) -> tuple[Tensor | None, ...]:
        """The arguments of the flow's ``forward``; call it inside :meth:`drawing`."""
        return self.x, self.noise, self.y

    def drawing(self) -> AbstractContextManager[None]:
        """The context in which bijectors draw as in :meth:`log_prob`."""
        return keyed_draws(self.keys)

    def context(self) -> Tensor | None:
        """The context that the batch's labels give the bijector."""
        return self.flow.context_of(self.y, len(self.x))

    def total(self, noise: Tensor | None = None) -> Tensor:
        """The sum of :meth:`log_prob`."""
        return self.log_prob(noise).sum()

    def of(self, flow: Flow) -> Probe:
        """The same batch for another flow, in that flow's dtype."""
        probe = copy.copy(self)
        probe.flow, probe.noise = flow, self.noise.to(next(flow.parameters()).dtype)
        return probe

    def unit_batch(self) -> Tensor:
        """The batch as the bijector takes it: images ``(n, C, H, W)`` in the unit cube, vectors, or these augmented."""
        flow = self.flow
        batch = self.x.to(self.noise.dtype)
        if flow.data_kind == "images":
            levels = (self.x >> (8 - flow.n_bits)).to(self.noise.dtype)
            batch = (levels + (0.5 if flow.dequantization.fills_bins else 0.0)) / 2**flow.n_bits
        if flow.augmentation is not None:
            batch, _ = flow.augmentation(batch, central=True)
        return batch


def of_integers(flow: Flow) -> bool:
    """Whether a flow's density is of whole grey levels alone: it takes no noise, and nothing by which to derive."""
    return flow.data_kind == "images" and flow.noise_kind == "none"


def draws(flow: Flow) -> bool:
    """Whether evaluating the density draws random numbers besides the noise."""
    return flow.log_det_kind != "exact" or flow.augmentation is not None


NOT_OF_INTEGERS = NotAsked("not asked of a flow of integers, whose density has no derivatives by the data")
NOT_OF_DRAWS = NotAsked("not asked of a flow that draws random numbers")


def plain(flow: Flow) -> Flow:
    """A copy of a flow that stores its activations; evaluate it inside ``engine.disabled()``."""
    twin = copy.deepcopy(flow)
    twin.set_memory("store")
    return twin


def gradients(probe: Probe) -> list[Tensor]:
    """The gradients of the total log-probability by the noise and all parameters; zeros where there is none."""
    noise = probe.noise.clone().requires_grad_()
    inputs = [noise, *probe.flow.parameters()]
    found = torch.autograd.grad(probe.total(noise), inputs, allow_unused=True, materialize_grads=True)
    return list(found)


def plain_gradients(probe: Probe) -> list[Tensor]:
    """:func:`gradients` of the plain copy."""
    with engine.disabled():
        return gradients(probe.of(plain(probe.flow)))


def plain_log_prob(probe: Probe) -> Tensor:
    """Log-probabilities ``(n,)`` of the plain copy."""
    with engine.disabled(), torch.no_grad():
        return probe.of(plain(probe.flow)).log_prob()


def directions(tensors: Iterable[Tensor], seed: int = 7) -> list[Tensor]:
    """Random directions of the tensors' shapes, together of length 1."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.device) for t in tensors]
    length = torch.stack([d.square().sum() for d in drawn]).sum().sqrt()
    return [d / length for d in drawn]


def along(tensors: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
    """The inner product of lists of tensors."""
    return torch.stack([(t * d).sum() for t, d in zip(tensors, directions, strict=True)]).sum()


@torch.no_grad()
def moved(flow: Flow, directions: Sequence[Tensor], step: float) -> Flow:
    """A copy of a flow whose parameters are moved by ``step`` along these directions."""
    twin = plain(flow)
    for parameter, direction in zip(twin.parameters(), directions, strict=True):
        parameter.add_(direction, alpha=step)
    return twin


def slope(function: Callable[[float], Tensor], step: float = STEP) -> Tensor:
    """The derivative of a function at 0 by a central difference, computed plainly."""
    with engine.disabled():
        return (function(step).detach() - function(-step).detach()) / (2 * step)


def difference(found: Tensor | Sequence[Tensor], expected: Tensor | Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest expected magnitude (or 1e-12, if that is zero)."""
    pairs = [(found, expected)] if isinstance(found, Tensor) else list(zip(found, expected, strict=True))
    wide = [(torch.as_tensor(f).detach().double(), torch.as_tensor(e).detach().double()) for f, e in pairs]
    size = max((float(e.abs().max()) for _, e in wide if e.numel()), default=0.0)
    errors = [0.0]
    for f, e in wide:
        assert f.shape == e.shape, f"shape {tuple(f.shape)}; expected {tuple(e.shape)}"
        errors += [float((f - e).abs().max())] if e.numel() else []
    # NaN wins, which max would leave to chance.
    largest = math.nan if any(map(math.isnan, errors)) else max(errors)
    return largest / max(size, 1e-12)


def agree(
    what: str,
    found: Tensor | Sequence[Tensor],
    expected: Tensor | Sequence[Tensor],
    bound: float = EXACT,
) -> float:
    """Asserts that two results differ by at most ``bound``; returns their relative difference."""
    error = difference(found, expected)
    # Written so that NaN fails.
    assert error <= bound, f"{what}: relative error {error:.1e}, allowed {bound:.0e}"
    return error


def worst(errors: Iterable[float]) -> str:
    """The detail of a check that compared several things."""
    return f"error {max(errors):.0e}"


def one_line(error: BaseException) -> str:
    """An error's class and the beginning of its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
