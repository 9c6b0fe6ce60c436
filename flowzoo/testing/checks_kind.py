"""Conformance checks of the kind of map that an architecture says it is: exact, estimated, solved."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.bijectors import residuals
from flowzoo.flow import Flow
from flowzoo.nets.keyed import Keys, keyed_draws
from flowzoo.testing.checks_math import unit_batch
from flowzoo.testing.subject import NotAsked, Subject

PROBES = 400
"""Probes over which an estimated log-determinant is averaged."""

SIGMAS = 5.0
"""Standard errors that a mean over probes may be off."""

GRID = 801
"""Points of a quadrature in each of at most two dimensions."""


def log_det_is_jacobian(subject: Subject) -> str:
    """log_det is log|det| of the autograd Jacobian: within 1e-8 (float64) if exact, in the mean if unbiased.

    A biased one is measured and said, not held to anything.
    """
    flow = subject.build(seed=2)
    y, context = unit_batch(flow, 2, torch.float64)
    true = _log_dets(flow, y, context)
    kind = flow.log_det_kind
    if kind == "exact":
        worst = float((true - flow.bijector(y, context)[1]).detach().abs().max())
        allowed = max(1e-8, 10 * (_forward_tolerance(flow)))
        assert worst <= allowed, f"log_det is off by {worst:.1e} nats, allowed {allowed:.0e}"
        return f"error {worst:.1e} nats"
    found = _estimates(flow, y, context, PROBES)
    error = found.mean(dim=0) - true
    if kind == "biased":
        return f"biased by {float(error.abs().max()):.1e} nats in the mean of {PROBES} probes"
    sigma = found.std(dim=0) / PROBES**0.5
    worst = float((error.abs() / sigma.clamp_min(1e-12)).max())
    assert worst <= SIGMAS, (
        f"the mean of {PROBES} probes is {worst:.1f} standard errors off: it is not unbiased"
    )
    return f"{float(error.abs().max()):.1e} nats off, {worst:.1f} standard errors"


@torch.no_grad()
def estimates_are_keyed(subject: Subject) -> str:
    """An estimate is a function of (seed, item, probe), and its variance falls with the number of probes."""
    flow = subject.build(seed=2)
    if flow.log_det_kind == "exact":
        return NotAsked("exact: nothing is estimated")
    y, context = unit_batch(flow, 3, torch.float64)
    items = [7, 8, 9]
    first = _estimate(flow, y, context, Keys(seed=1, items=items))
    assert torch.equal(first, _estimate(flow, y, context, Keys(seed=1, items=items))), (
        "a key gives two estimates"
    )
    one = None if context is None else context[1:2]
    alone = _estimate(flow, y[1:2], one, Keys(seed=1, items=items[1:2]))
    apart = float((alone - first[1:2]).abs().max())
    assert apart <= 1e-8, f"an item's estimate depends on its batch: {apart:.1e} nats"
    for other in (
        Keys(seed=2, items=items),
        Keys(seed=1, items=items, probe=1),
        Keys(seed=1, items=[1, 2, 3]),
    ):
        assert not torch.equal(first, _estimate(flow, y, context, other)), "an estimate ignores its key"
    found = _estimates(flow, y, context, PROBES)
    means = found.reshape(-1, 16, 3).mean(dim=1)
    ratio = float((found.var(dim=0) / means.var(dim=0)).mean())
    assert 16 / 2.5 <= ratio <= 16 * 2.5, (
        f"16 probes have {1 / ratio:.3f} of one probe's variance; expected 1/16"
    )
    return f"16 probes: variance / {ratio:.1f}"


@torch.no_grad()
def kind_is_said(subject: Subject) -> str:
    """A numeric direction reports a residual within its tolerance; an analytic one reports none."""
    flow = subject.build(seed=12)
    kind = flow.bijector.map_kind
    y, context = unit_batch(flow, 4, torch.float64)
    z, _ = flow.bijector(y, context)
    with residuals() as found:
        flow.bijector.inverse(z, context)
    if kind.inverse != "numeric":
        assert found.count == 0, f"the inverse is {kind.inverse} and solves equations; say inverse='numeric'"
    else:
        assert kind.tolerance is not None, "a numeric inverse says no tolerance"
        assert found.count > 0, "a numeric inverse reports no residual: call require_converged"
        assert found.largest <= kind.tolerance, f"residual {found.largest:.1e} above {kind.tolerance:.0e}"
    residual = f", residual {found.largest:.0e}" if found.count else ""
    passes = f"{kind.forward_passes} pass(es) to a density, {kind.inverse_passes} to a sample"
    return f"log_det {kind.log_det}, inverse {kind.inverse}{residual}, {passes}"


@torch.no_grad()
def density_integrates(subject: Subject) -> str:
    """In one or two dimensions the density over a wide square integrates to the share of samples in it."""
    flow = subject.build(seed=4)
    if flow.data_kind != "vectors" or flow.dims > 2 or flow.is_lower_bound or flow.log_det_kind != "exact":
        return NotAsked("asked of exact densities of one or two dimensions")
    # In one batch: where sampling solves equations, a batch takes as many steps as its slowest sample.
    samples = flow.sample(4000, seed=4, batch_size=4000)
    low, high = samples.quantile(0.01, dim=0) - 1, samples.quantile(0.99, dim=0) + 1
    axes = [
        torch.linspace(float(a), float(b), GRID, dtype=torch.float64, device=samples.device)
        for a, b in zip(low, high, strict=True)
    ]
    grid = torch.cartesian_prod(*axes).reshape(-1, flow.dims)
    density = torch.cat([flow.log_prob(part) for part in grid.split(20_000)]).exp()
    mass = density.reshape([GRID] * flow.dims)
    for axis in reversed(axes):
        mass = torch.trapezoid(mass, axis)
    share = float(((samples >= low) & (samples <= high)).all(dim=1).double().mean())
    tolerance = 5 * (share * (1 - share) / len(samples)) ** 0.5 + 0.01
    assert abs(float(mass) - share) <= tolerance, (
        f"the density integrates to {float(mass):.4f} where {share:.4f} of the samples are (allowed {tolerance:.4f})"
    )
    return f"integral {float(mass):.4f}, share of samples {share:.4f}"


def _forward_tolerance(flow: Flow) -> float:
    kind = flow.bijector.map_kind
    return (kind.tolerance or 0.0) if kind.forward == "numeric" else 0.0


def _log_dets(flow: Flow, y: Tensor, context: Tensor | None) -> Tensor:
    """The true log-determinants ``(B,)``, by autograd."""
    found = []
    for i in range(len(y)):
        row = None if context is None else context[i : i + 1]

        def one(v: Tensor, row: Tensor | None = row) -> Tensor:
            return flow.bijector(v[None], row)[0][0]

        jacobian = torch.autograd.functional.jacobian(one, y[i])
        found.append(torch.linalg.slogdet(jacobian.reshape(flow.latent_dims, flow.latent_dims)).logabsdet)
    return torch.stack(found)


@torch.no_grad()
def _estimate(flow: Flow, y: Tensor, context: Tensor | None, keys: Keys) -> Tensor:
    with keyed_draws(keys):
        return flow.bijector(y, context)[1]


def _estimates(flow: Flow, y: Tensor, context: Tensor | None, probes: int) -> Tensor:
    """Estimates ``(probes, B)``."""
    keys = [Keys(seed=3, items=range(len(y)), probe=k) for k in range(probes)]
    return torch.stack([_estimate(flow, y, context, k) for k in keys])
