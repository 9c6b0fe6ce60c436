"""Backward passes that rebuild activations by inversion instead of storing them.

A chain of bijectors needs no stored activations: its output determines every one of them (Gomez et al., 2017, for
residual networks). The backward pass walks the chain from its end; each bijector inverts its output, evaluates itself
again with gradients, and hands input and input gradient to the one before it. Peak memory is that of one bijector,
and of the parameters that are folded at a time (:mod:`flowzoo.bijectors.refolding`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flowzoo.nets.caching import unkept
from flowzoo.nets.derivatives import first_derivative
from flowzoo.nets.folding import differentiable
from flowzoo.nets.precision import RunsNetwork
from flowzoo.nets.tree import modules_of

DRIFT_BOUND = 1e-2
"""Largest tolerated difference between an input and its reconstruction, relative to the input's RMS."""


class Reversed(NamedTuple):
    """What one bijector's backward pass by inversion gives: its input, and the gradients that reach it."""

    x: Tensor
    grad_x: Tensor
    grad_context: Tensor | None


class GradientSink:
    """Sums the gradients of parameters, by parameter."""

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}

    def add(self, parameter: Tensor, gradient: Tensor | None) -> None:
        """Adds a gradient; None is nothing."""
        if gradient is not None:
            known = self._sums.get(id(parameter))
            self._sums[id(parameter)] = gradient if known is None else known + gradient

    def get(self, parameter: Tensor) -> Tensor | None:
        """The sum for a parameter, or None if nothing was added."""
        return self._sums.get(id(parameter))

    def pop(self, parameter: Tensor) -> Tensor | None:
        """The same, and forgets it."""
        return self._sums.pop(id(parameter), None)


class Pull(NamedTuple):
    """The gradients at a bijector's outputs: of z ``(B, ...)`` and of log_det ``(B,)``."""

    grad_z: Tensor
    grad_log_det: Tensor
    sink: GradientSink

    def differentiate(
        self, module: nn.Module, z: Tensor, log_det: Tensor, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Vector-Jacobian product of (z, log_det) for ``inputs``; that of the module's own tensors goes to the sink."""
        return self.through(module, (z, log_det), (self.grad_z, self.grad_log_det), inputs)

    def through(
        self,
        module: nn.Module,
        outputs: tuple[Tensor, ...],
        gradients: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """The same of whatever the module computed, with the gradients there."""
        own = differentiable(module)
        pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if o.requires_grad]
        # Typed as tensors throughout, but what an output does not depend on comes back as None.
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            [o for o, _ in pairs], [*inputs, *own], [g for _, g in pairs], allow_unused=True
        )
        for tensor, gradient in zip(own, found[len(inputs) :], strict=True):
            self.sink.add(tensor, gradient)
        return tuple(
            torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found[: len(inputs)], strict=True)
        )


def fresh(x: Tensor) -> Tensor:
    """A leaf of the same values that wants a gradient."""
    return x.detach().requires_grad_()


class _ByInversion(torch.autograd.Function):
    """The whole chain as one node of the graph that keeps only its output (and its input, to measure drift)."""

    @staticmethod
    def forward(
        ctx: Any, chain: Any, x: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        owners = _record_randomness(chain)
        try:
            with unkept():
                z, log_det = chain.run(x, context)
            ctx.tapes = {owner: owner.random_states for owner in owners}
        finally:
            _forget_randomness(chain)
        ctx.chain, ctx.parameters = chain, parameters
        ctx.has_context = context is not None
        ctx.save_for_backward(z, x, *(() if context is None else (context,)))
        return z, log_det

    @staticmethod
    @first_derivative
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        z, x, *rest = ctx.saved_tensors
        context = rest[0] if ctx.has_context else None
        chain, sink = ctx.chain, GradientSink()
        for owner, states in ctx.tapes.items():
            owner.random_states = states
        devices = [z.device] if z.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices), frozen_statistics(chain), unkept():
                found = chain.reverse(z.detach(), context, Pull(gradients[0], gradients[1], sink))
        finally:
            _forget_randomness(chain)
        _warn_of_drift(chain, x, found.x)
        return None, found.grad_x, found.grad_context, *[sink.get(p) for p in ctx.parameters]


def run_by_inversion(chain: Any, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Runs a chain so that its backward pass rebuilds the activations."""
    z, log_det = _ByInversion.apply(chain, x, context, *differentiable(chain))
    return z, log_det


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keeps running averages of batch norms from moving while a batch is evaluated again."""
    owners = [m for m in modules_of(module) if "running_mean" in m._buffers and hasattr(m, "momentum")]
    momenta = [m.momentum for m in owners]
    for owner in owners:
        owner.momentum = 0.0  # type: ignore[assignment]
    try:
        yield
    finally:
        for owner, momentum in zip(owners, momenta, strict=True):
            owner.momentum = momentum


def _record_randomness(chain: nn.Module) -> list[RunsNetwork]:
    """Has networks with active dropout note the generator's state, so that each can be evaluated alike again."""
    owners: list[RunsNetwork] = [
        m for m in modules_of(chain) if isinstance(m, RunsNetwork) and _has_dropout(m)
    ]
    for owner in owners:
        owner.random_states = []
    return owners


def _forget_randomness(chain: nn.Module) -> None:
    for module in modules_of(chain):
        if isinstance(module, RunsNetwork):
            module.random_states = None


def _has_dropout(module: object) -> bool:
    assert isinstance(module, nn.Module)
    return any(
        isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p > 0 for m in modules_of(module)
    )


def _warn_of_drift(chain: Any, x: Tensor, reconstruction: Tensor) -> None:
    # One comparison in a hundred: it makes the host wait for the device.
    chain.reversals += 1
    if chain.reversals % 100 != 1 or x.numel() == 0:
        return
    drift = float((reconstruction - x).abs().max() / x.square().mean().sqrt().clamp_min(1e-12))
    if not drift <= DRIFT_BOUND:
        warnings.warn(
            f"memory='invertible' rebuilt this chain's input with a relative error of {drift:.1e} "
            f"(bound {DRIFT_BOUND:.0e}); gradients may be wrong. Use memory='checkpoint' or float64.",
            stacklevel=2,
        )
