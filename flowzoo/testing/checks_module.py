"""Conformance checks of a flow as an ordinary torch module, and of the engine against the plain computation."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo import engine
from flowzoo.flow import Flow
from flowzoo.testing.capabilities.changes import weights_changed_count
from flowzoo.testing.capabilities.derivatives import hessian_vector_products
from flowzoo.testing.capabilities.probe import MODES, Probe, agree, gradients, plain, plain_gradients
from flowzoo.testing.capabilities.transforms import other_weights, per_sample_gradients
from flowzoo.testing.subject import Subject


def functional_call(subject: Subject) -> str:
    """``functional_call`` with weights that are no leaves gives values and gradients, in every memory mode."""
    return other_weights(subject.build(seed=15))


def gradients_of_samples(subject: Subject) -> str:
    """``vmap(grad(functional_call))`` gives each image's gradient."""
    return per_sample_gradients(subject.build(seed=16))


def changed_weights(subject: Subject) -> str:
    """Weights that are changed in any way count at the next call."""
    return weights_changed_count(subject.build(seed=17))


def second_derivatives(subject: Subject) -> str:
    """Hessian-vector products are differences of gradients, in every memory mode."""
    return hessian_vector_products(subject.build(seed=18))


def engine_equals_plain(subject: Subject) -> str:
    """The engine's values and gradients are the plain ones: both directions, both dtypes, every memory mode."""
    details = []
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        flow = subject.build(seed=19, dtype=dtype)
        probe = Probe(flow)
        for frozen in (False, True):
            with flow.frozen() if frozen else torch.enable_grad():
                _both_directions(probe, bound)
        expected = plain_gradients(probe)
        for mode in MODES:
            flow.set_memory(mode)
            # Inversion rebuilds activations up to rounding.
            allowed = max(bound, 1e-6, 100 * (flow.bijector.map_kind.tolerance or 0.0))
            agree(f"{dtype}, {mode}, gradients", gradients(probe), expected, allowed)
        flow.set_memory("store")
        details.append(flow.engine.explain(flow.bijector, probe.unit_batch(), probe.context()))
    return "; ".join(details[0].splitlines())


@torch.no_grad()
def _both_directions(probe: Probe, bound: float) -> None:
    flow = probe.flow
    y, context = probe.unit_batch(), probe.context()

    def answers(flow: Flow, z: Tensor | None = None) -> list[Tensor]:
        with probe.drawing():
            forward = flow.engine.run(flow.bijector, y, context)
            latent = forward[0] if z is None else z
            back = flow.engine.run(flow.bijector, latent, context, inverse=True)
        return [probe.of(flow).log_prob(), *forward, *back]

    with engine.disabled():
        expected = answers(plain(flow))
    names = ("log_prob", "z", "log_det", "inverse", "log_det of the inverse")
    for name, found, exact in zip(names, answers(flow, expected[1]), expected, strict=True):
        # A map of constant volume has a log-determinant of zero.
        error = float((found - exact).abs().max())
        allowed = bound * max(1.0, float(exact.abs().max()))
        assert error <= allowed, f"{y.dtype}: {name} is off by {error:.1e}, allowed {allowed:.0e}"
