"""Capabilities of ``torch.func``: derivatives, vmap, and calls with other weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)

from flowzoo import engine
from flowzoo.flow import Flow
from flowzoo.testing.capabilities.probe import (
    EXACT,
    MODES,
    NOISE_STEP,
    NOT_OF_DRAWS,
    NOT_OF_INTEGERS,
    NUMERIC,
    Probe,
    agree,
    directions,
    draws,
    gradients,
    of_integers,
    plain,
    plain_gradients,
    plain_log_prob,
    slope,
    worst,
)


def _noise_slope(probe: Probe, direction: Tensor) -> Tensor:
    """The derivatives of the log-probabilities ``(n,)`` along a direction of the noise."""
    twin = probe.of(plain(probe.flow))
    with torch.no_grad():
        return slope(lambda step: twin.log_prob(twin.noise + step * direction), NOISE_STEP)


def func_grad(flow: Flow) -> str:
    """``torch.func.grad`` of log_prob by the noise is the gradient."""
    probe = Probe(flow)
    found = grad(probe.total)(probe.noise)
    (direction,) = directions([probe.noise])
    numeric = agree(
        "by differences", (found * direction).sum(), _noise_slope(probe, direction).sum(), NUMERIC
    )
    return worst([numeric, agree("autograd", found, plain_gradients(probe)[0])])


def func_vjp(flow: Flow) -> str:
    """``torch.func.vjp`` of log_prob by the noise is the gradient."""
    probe = Probe(flow)
    values, pull = vjp(probe.log_prob, probe.noise)  # type: ignore[misc]
    agree("value", values, plain_log_prob(probe))
    (found,) = pull(torch.ones_like(values))
    return worst([agree("vjp", found, plain_gradients(probe)[0])])


def func_jvp(flow: Flow) -> str:
    """``torch.func.jvp`` of log_prob and of the bijector are the finite differences, also under ``no_grad``."""
    probe = Probe(flow)
    (direction,) = directions([probe.noise])
    expected = _noise_slope(probe, direction)
    errors = []
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            value, tangent = jvp(probe.log_prob, (probe.noise,), (direction,))  # type: ignore[misc]
        errors.append(agree("value", value, plain_log_prob(probe)))
        errors.append(agree(f"tangent, gradients {recorded}", tangent, expected, NUMERIC))
    y = probe.unit_batch()
    (direction,) = directions([y])

    def mapped(y: Tensor) -> tuple[Tensor, Tensor]:
        with probe.drawing():
            z, log_det = flow.bijector(y)
        return z, log_det

    _, tangents = jvp(mapped, (y,), (direction,))  # type: ignore[misc]
    with torch.no_grad():
        for index in (0, 1):
            # A map of constant volume has a log-determinant that does not move at all.
            numeric = slope(lambda step, i=index: mapped(y + step * direction)[i])  # type: ignore[misc]
            error = float((numeric - tangents[index]).detach().abs().max())
            assert error <= NUMERIC * max(1.0, float(numeric.abs().max())), (
                f"bijector tangent off by {error:.1e}"
            )
            errors.append(error)
    return worst(errors)


def func_jacobians(flow: Flow) -> str:
    """``jacrev`` and ``jacfwd`` of the bijector agree, and their determinant is its log_det."""
    if flow.log_det_kind != "exact":
        return NOT_OF_DRAWS
    y = Probe(flow, 1).unit_batch()
    _, log_det = flow.bijector(y)
    found = [transform(lambda v: flow.bijector(v)[0])(y) for transform in (jacrev, jacfwd)]
    square = [jacobian.reshape(y.numel(), y.numel()) for jacobian in found]
    errors = [agree("jacrev and jacfwd", square[0], square[1])]
    errors += [agree("log_det", torch.linalg.slogdet(j).logabsdet, log_det[0], 1e-8) for j in square]
    return worst(errors)


def func_hessian(flow: Flow) -> str:
    """``torch.func.hessian`` of log_prob by the noise is symmetric and is the difference of gradients."""
    if of_integers(flow):
        return NOT_OF_INTEGERS
    probe = Probe(flow, 1)
    found = hessian(probe.total)(probe.noise).reshape(flow.dims, flow.dims)
    (direction,) = directions([probe.noise])
    twin = probe.of(plain(flow))

    def gradient(step: float) -> Tensor:
        noise = (twin.noise + step * direction).requires_grad_()
        return torch.autograd.grad(twin.total(noise), noise)[0]

    errors = [agree("symmetry", found, found.T, 1e-8)]
    errors.append(
        agree("product", found @ direction.flatten(), slope(gradient, NOISE_STEP).flatten(), 10 * NUMERIC)
    )
    return worst(errors)


def func_vmap(flow: Flow) -> str:
    """``vmap`` of log_prob and of the bijector equals the batch, with and without gradients."""
    if draws(flow):
        return NOT_OF_DRAWS
    probe = Probe(flow, 3)
    errors = []
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            found = vmap(lambda x, n: flow.log_prob(x[None], noise=n[None])[0])(probe.x, probe.noise)
            z, log_det = vmap(lambda y: tuple(part[0] for part in flow.bijector(y[None])))(probe.unit_batch())
        errors.append(agree("log_prob", found, plain_log_prob(probe)))
        with engine.disabled():
            expected = flow.bijector(probe.unit_batch())
        errors += [agree("z", z, expected[0]), agree("log_det", log_det, expected[1])]
    return worst(errors)


def per_sample_gradients(flow: Flow) -> str:
    """``vmap(grad(functional_call))`` gives each item's gradient by each parameter."""
    if draws(flow):
        return NOT_OF_DRAWS
    probe = Probe(flow, 3)
    weights = {name: p.detach() for name, p in flow.named_parameters()}

    def one(weights: dict[str, Tensor], x: Tensor, noise: Tensor, *y: Tensor) -> Tensor:
        labels = [label[None] for label in y]
        value: Tensor = functional_call(flow, weights, (x[None], noise[None], *labels))[0]
        return value

    batch = [part for part in probe.arguments() if part is not None]
    found = vmap(grad(one), in_dims=(None, *(0 for _ in batch)))(weights, *batch)
    errors = []
    for index in range(3):
        single = probe.of(flow)
        rows = slice(index, index + 1)
        single.x, single.noise = probe.x[rows], probe.noise[rows]
        single.y, single.keys = None if probe.y is None else probe.y[rows], probe.keys.part(index, index + 1)
        _, *expected = plain_gradients(single)
        errors.append(agree(f"image {index}", [g[index] for g in found.values()], expected))
    return worst(errors)


def ensemble(flow: Flow) -> str:
    """``stack_module_state`` and ``vmap`` evaluate several models at once, values and gradients."""
    if draws(flow):
        return NOT_OF_DRAWS
    probe, second = Probe(flow), copy.deepcopy(flow)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.05)
    weights, buffers = stack_module_state([flow, second])

    def one(weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        value: Tensor = functional_call(flow, (weights, buffers), (probe.x, probe.noise))
        return value

    found = vmap(one)(weights, buffers)
    expected = torch.stack([plain_log_prob(probe), plain_log_prob(probe.of(second))])
    found.sum().backward()
    own = [p.grad[1] for p in weights.values() if p.grad is not None]
    errors = [agree("values", found, expected)]
    errors.append(agree("gradients", own, plain_gradients(probe.of(second))[1:]))
    return worst(errors)


def other_weights(flow: Flow) -> str:
    """``functional_call`` with weights that are no leaves: values and gradients, in every memory mode."""
    probe = Probe(flow)
    names = [name for name, _ in flow.named_parameters()]
    leaves = [(1.1 * p.detach()).requires_grad_() for p in flow.parameters()]
    moved = plain(flow)
    with torch.no_grad():
        for parameter, leaf in zip(moved.parameters(), leaves, strict=True):
            parameter.copy_(leaf * 0.9 + 0.01)
    expected = plain_log_prob(probe.of(moved))
    slopes = [0.9 * g for g in plain_gradients(probe.of(moved))[1:]]
    errors = []
    for mode in MODES:
        flow.set_memory(mode)
        weights = {name: leaf * 0.9 + 0.01 for name, leaf in zip(names, leaves, strict=True)}
        with probe.drawing():
            value = functional_call(flow, weights, probe.arguments())
        found: tuple[Tensor | None, ...] = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        missing = sum(g is None for g in found)
        assert not missing, f"{mode}: {missing} of {len(found)} gradients are None"
        assert all(p.grad is None for p in flow.parameters()), f"{mode}: gradients reach the replaced weights"
        errors.append(agree(f"{mode}, value", value, expected))
        allowed = bound(mode, flow)
        errors.append(agree(f"{mode}, gradients", [g for g in found if g is not None], slopes, allowed))
    return worst(errors)


def bound(mode: str, flow: Flow) -> float:
    """The largest relative error of gradients in a memory mode: inversion rebuilds activations up to rounding."""
    if mode != "invertible":
        return EXACT
    return max(1e-6, 100 * (flow.bijector.map_kind.tolerance or 0.0))


def memory_modes_agree(flow: Flow) -> str:
    """Values and gradients by parameters and noise are the plain ones in every memory mode, and finite differences."""
    probe = Probe(flow)
    expected = plain_gradients(probe)
    errors = []
    for mode in MODES:
        flow.set_memory(mode)
        errors.append(agree(f"{mode}, values", probe.log_prob(), plain_log_prob(probe)))
        errors.append(agree(f"{mode}, gradients", gradients(probe), expected, bound(mode, flow)))
    return worst(errors)
