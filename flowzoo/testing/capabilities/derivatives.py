"""Capabilities of autograd: finite differences, second derivatives, forward mode, the inverse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from flowzoo import engine
from flowzoo.errors import InputError
from flowzoo.flow import Flow
from flowzoo.testing.capabilities.probe import (
    MODES,
    NOISE_STEP,
    NOT_OF_INTEGERS,
    NUMERIC,
    Probe,
    agree,
    along,
    directions,
    gradients,
    moved,
    of_integers,
    plain,
    plain_log_prob,
    slope,
    worst,
)

SECOND = 10 * NUMERIC
"""Largest relative difference of a second derivative from the difference of first ones."""


def _seeded_log_prob(probe: Probe) -> Tensor:
    torch.manual_seed(3)
    return probe.total()


ESTIMATED = 1e-2
"""The same in training of a first derivative where the log-determinant is estimated: by series cut off elsewhere, and
by singular vectors that have converged to three digits."""


def _allowed(flow: Flow, training: bool) -> float:
    return ESTIMATED if training and flow.log_det_kind != "exact" else NUMERIC


def finite_differences(flow: Flow) -> str:
    """Gradients by the parameters are finite differences, in train and eval mode and every memory mode."""
    probe, errors = Probe(flow), []
    way = directions(flow.parameters())
    for training in (False, True):
        flow.train(training)
        with torch.no_grad():
            expected = slope(lambda step: _seeded_log_prob(probe.of(moved(flow, way, step))))
        for mode in MODES:
            flow.set_memory(mode)
            torch.manual_seed(3)
            found = along(gradients(probe)[1:], way)
            name = f"{'train' if training else 'eval'}, {mode}"
            errors.append(agree(name, found, expected, _allowed(flow, training)))
    return worst(errors)


def checked_gradients(flow: Flow) -> str:
    """``gradcheck`` of log_prob by the noise passes."""
    probe = Probe(flow, 1)
    assert gradcheck(probe.log_prob, (probe.noise.clone().requires_grad_(),), fast_mode=True)
    return "passes"


def checked_second_gradients(flow: Flow) -> str:
    """``gradgradcheck`` of log_prob by the noise, along two directions, passes in every memory mode."""
    probe = Probe(flow, 1)
    ways = torch.stack([directions([probe.noise], seed)[0] for seed in (1, 2)])

    def of_two(steps: Tensor) -> Tensor:
        # Squared, since a slope that is the same everywhere has no graph.
        return probe.log_prob(probe.noise + torch.tensordot(steps, ways, 1)).square()

    for mode in MODES:
        flow.set_memory(mode)
        assert gradgradcheck(of_two, (torch.zeros(2).to(probe.noise).requires_grad_(),))
    return "passes"


def hessian_vector_products(flow: Flow) -> str:
    """Second derivatives by the parameters, in train and eval mode and every memory mode."""
    probe, errors = Probe(flow), []
    way = directions(flow.parameters())
    for training in (False, True):
        flow.train(training)
        expected = _slopes_of_gradient(probe, way)
        for mode in MODES:
            flow.set_memory(mode)
            parameters = list(flow.parameters())
            first = torch.autograd.grad(_seeded_log_prob(probe), parameters, create_graph=True)
            found = torch.autograd.grad(
                along(first, way), parameters, allow_unused=True, materialize_grads=True
            )
            name = f"{'train' if training else 'eval'}, {mode}"
            errors.append(agree(name, along(found, way), expected, SECOND))
    return worst(errors)


def _slopes_of_gradient(probe: Probe, way: Sequence[Tensor]) -> Tensor:
    def first(step: float) -> Tensor:
        twin = probe.of(moved(probe.flow, way, step))
        return along(torch.autograd.grad(_seeded_log_prob(twin), list(twin.flow.parameters())), way)

    return slope(first)


def gradient_penalty(flow: Flow) -> str:
    """The gradient of |d log_prob / d noise|^2 by the parameters, in every memory mode."""
    if of_integers(flow):
        return NOT_OF_INTEGERS
    probe, errors = Probe(flow), []
    way = directions(flow.parameters())

    def penalty(probe: Probe, create_graph: bool) -> Tensor:
        noise = probe.noise.clone().requires_grad_()
        (score,) = torch.autograd.grad(probe.total(noise), noise, create_graph=create_graph)
        return score.square().sum()

    expected = slope(lambda step: penalty(probe.of(moved(flow, way, step)), False))
    for mode in MODES:
        flow.set_memory(mode)
        parameters = list(flow.parameters())
        found = torch.autograd.grad(
            penalty(probe, True), parameters, allow_unused=True, materialize_grads=True
        )
        errors.append(agree(mode, along(found, way), expected, SECOND))
    return worst(errors)


def forward_mode(flow: Flow) -> str:
    """``forward_ad.make_dual`` gives tangents of log_prob, with gradients, without, and with frozen parameters."""
    if of_integers(flow):
        return NOT_OF_INTEGERS
    probe, errors = Probe(flow), []
    (way,) = directions([probe.noise])
    twin = probe.of(plain(flow))
    with torch.no_grad():
        expected = slope(lambda step: twin.log_prob(twin.noise + step * way), NOISE_STEP)
    for name, recorded, frozen in (
        ("with gradients", True, False),
        ("no_grad", False, False),
        ("requires_grad_(False)", True, True),
    ):
        flow.requires_grad_(not frozen)
        with torch.set_grad_enabled(recorded), forward_ad.dual_level():
            value = probe.log_prob(forward_ad.make_dual(probe.noise, way))
            primal, tangent = forward_ad.unpack_dual(value)
        assert tangent is not None, f"{name}: no tangent"
        errors.append(agree(f"{name}, value", primal, plain_log_prob(probe)))
        errors.append(agree(f"{name}, tangent", tangent, expected, NUMERIC))
    return worst(errors)


def inverse_gradients(flow: Flow) -> str:
    """Gradients of ``bijector.inverse`` by latent and parameters are finite differences, in train and eval mode."""
    if of_integers(flow):
        return NOT_OF_INTEGERS
    probe, errors, refused = Probe(flow), [], ""
    with torch.no_grad(), engine.disabled():
        z = flow.bijector(probe.unit_batch())[0]
    for training in (False, True):
        flow.train(training)
        name = "train" if training else "eval"
        try:
            errors.append(_inverse_error(flow, z, name))
        except InputError as error:
            if not (training and "eval()" in str(error)):
                raise
            refused = ", refused in train mode"
    return worst(errors) + refused


def _inverse_error(flow: Flow, z: Tensor, name: str) -> float:
    way = directions([z, *flow.bijector.parameters()])
    weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype, device=z.device)

    def value(model: Flow, latent: Tensor) -> Tensor:
        torch.manual_seed(3)
        y, log_det = model.bijector.inverse(latent)
        return (y.flatten() * weights).sum() + log_det.sum()

    def shifted(step: float) -> Tensor:
        twin = plain(flow)
        for parameter, direction in zip(twin.bijector.parameters(), way[1:], strict=True):
            parameter.data.add_(direction, alpha=step)
        return value(twin, z + step * way[0])

    with torch.no_grad():
        expected = slope(shifted)
    latent = z.clone().requires_grad_()
    inputs = [latent, *flow.bijector.parameters()]
    found = torch.autograd.grad(value(flow, latent), inputs, allow_unused=True, materialize_grads=True)
    return agree(name, along(found, way), expected, _allowed(flow, flow.training))
