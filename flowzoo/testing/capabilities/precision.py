"""Capabilities of reduced precision: autocast, networks in bfloat16, and models that are converted whole."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowzoo.errors import FlowzooError
from flowzoo.flow import Flow
from flowzoo.testing.capabilities.probe import (
    MODES,
    Probe,
    difference,
    gradients,
    plain_gradients,
    plain_log_prob,
)

BITS = 0.05
"""Largest difference of bits per dimension that bfloat16 networks may make."""

GRADIENT = 0.1
"""Largest distance of a gradient under bfloat16 from the float32 one, relative to the latter's length."""


def _single(flow: Flow) -> Probe:
    flow.float()
    return Probe(flow, 4)


def _bits(probe: Probe, found: Tensor, expected: Tensor) -> float:
    assert found.dtype == torch.float32, f"log_prob is {found.dtype}; expected float32"
    return float((found - expected).detach().abs().max()) / (probe.flow.dims * math.log(2))


def _distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The distance of gradients, all parameters together, relative to their length."""
    for tensor, exact in zip(found, expected, strict=True):
        assert tensor.dtype == exact.dtype, f"a gradient is {tensor.dtype}; expected {exact.dtype}"
    pairs = list(zip(found, expected, strict=True))
    gap = sum(float((f.double() - e.double()).square().sum()) for f, e in pairs)
    return math.sqrt(gap / sum(float(e.double().square().sum()) for e in expected))


def autocast_log_prob(flow: Flow) -> str:
    """Under autocast to bfloat16, log_prob is float32 and near the exact one, in every memory mode."""
    probe = _single(flow)
    expected, errors = plain_log_prob(probe), []
    for mode in MODES:
        flow.set_memory(mode)
        for recorded in (False, True):
            with (
                torch.autocast(probe.noise.device.type, dtype=torch.bfloat16),
                torch.set_grad_enabled(recorded),
            ):
                errors.append(_bits(probe, probe.log_prob(), expected))
            name = f"{mode}, gradients {recorded}"
            assert errors[-1] <= BITS, f"{name}: off by {errors[-1]:.3f} bits/dim, allowed {BITS}"
    return f"within {max(errors):.1e} bits/dim"


def autocast_round_trip(flow: Flow) -> str:
    """Under autocast the bijector's log_det is float32 and its inverse inverts it."""
    probe = _single(flow)
    y = probe.unit_batch()
    with torch.autocast(probe.noise.device.type, dtype=torch.bfloat16), torch.no_grad():
        z, log_det = flow.bijector(y)
        back, inverse_log_det = flow.bijector.inverse(z)
    dtypes = {t.dtype for t in (z, log_det, back, inverse_log_det)}
    assert dtypes == {torch.float32}, f"results are {dtypes}; expected float32"
    error = float((back - y).abs().max())
    # The inverse evaluates the same networks, at inputs that rounding may have moved by a bfloat16 step.
    assert error <= 0.05, f"the inverse is off by {error:.2g} of a unit cube"
    return f"error {error:.1e}"


def autocast_training(flow: Flow) -> str:
    """Gradients of a loss under autocast are near the exact ones; backward inside and outside, every memory mode."""
    probe = _single(flow)
    expected, errors = plain_gradients(probe)[1:], []
    for mode in MODES:
        flow.set_memory(mode)
        for inside in (False, True):
            flow.zero_grad()
            with torch.autocast(probe.noise.device.type, dtype=torch.bfloat16):
                value = probe.total()
                if inside:
                    value.backward()
            if not inside:
                value.backward()
            found = [torch.zeros_like(p) if p.grad is None else p.grad for p in flow.parameters()]
            errors.append(_distance(found, expected))
            name = f"{mode}, backward {'inside' if inside else 'outside'}"
            assert errors[-1] <= GRADIENT, f"{name}: off by {errors[-1]:.1%}, allowed {GRADIENT:.0%}"
    return f"within {max(errors):.1%}"


def autocast_initialize(flow: Flow) -> str:
    """The data-dependent initialisation runs under autocast."""
    probe = _single(flow)
    for name, buffer in flow.named_buffers():
        if name.endswith("initialized"):
            buffer.fill_(False)
    with torch.autocast(probe.noise.device.type, dtype=torch.bfloat16):
        flow.initialize(probe.x, noise=probe.noise)
    assert flow.is_initialized, "something is not initialised"
    assert all(p.dtype == torch.float32 for p in flow.parameters()), "a parameter is not float32 any more"
    return "initialised"


def network_dtype(flow: Flow) -> str:
    """``set_network_dtype(torch.bfloat16)``: values, samples and gradients, in every memory mode."""
    probe = _single(flow)
    expected, slopes, errors = plain_log_prob(probe), plain_gradients(probe)[1:], []
    flow.set_network_dtype(torch.bfloat16)
    with torch.no_grad():
        flow.sample(2, seed=0, temperature=0.5)
        flow.encode(probe.x)
    for mode in MODES:
        flow.set_memory(mode)
        for recorded in (False, True):
            with torch.set_grad_enabled(recorded):
                errors.append(_bits(probe, probe.log_prob(), expected))
            assert errors[-1] <= BITS, f"{mode}: off by {errors[-1]:.3f} bits/dim, allowed {BITS}"
        distance = _distance(gradients(probe)[1:], slopes)
        assert distance <= GRADIENT, f"{mode}: gradients off by {distance:.1%}, allowed {GRADIENT:.0%}"
    return f"within {max(errors):.1e} bits/dim"


def half(flow: Flow) -> str:
    """``flow.half()`` works, or every use is refused by one clear error."""
    return _converted(flow, torch.float16)


def bfloat16(flow: Flow) -> str:
    """``flow.bfloat16()`` works, or every use is refused by one clear error."""
    return _converted(flow, torch.bfloat16)


def _converted(flow: Flow, dtype: torch.dtype) -> str:
    probe = _single(flow)
    expected = plain_log_prob(probe)
    flow.to(dtype)
    uses: dict[str, Callable[[], object]] = {
        "log_prob": lambda: _near(flow.log_prob(probe.x, noise=probe.noise.to(dtype)), expected, flow.dims),
        "backward": lambda: flow.log_prob(probe.x).sum().backward(),
        "sample": lambda: flow.sample(2, seed=0, temperature=0.5),
        "encode": lambda: flow.encode(probe.x),
    }
    refused, dtype_name = [], str(dtype).removeprefix("torch.")
    for name, use in uses.items():
        try:
            use()
        except FlowzooError as error:
            # The remedy: weights in float32, and networks in lower precision.
            if dtype_name not in str(error) or "set_network_dtype" not in str(error):
                raise
            refused.append(name)
    assert not refused or len(refused) == len(uses), f"only {', '.join(refused)} refused"
    return "refused in one line" if refused else "works"


def _near(found: Tensor, expected: Tensor, dims: int) -> None:
    assert found.dtype in (torch.float32, torch.float64), f"log_prob is {found.dtype}; expected float32"
    error = float((found - expected).detach().abs().max()) / (dims * math.log(2))
    # A model converted whole rounds its data too: a bin is no wider than a bfloat16 step.
    assert error <= 1.0, f"log_prob is off by {error:.2f} bits/dim"


def other_dtype(flow: Flow) -> str:
    """The same numbers, to rounding, in float32 as in float64: values and gradients."""
    probe = Probe(flow, 4)
    exact, slopes = plain_log_prob(probe), plain_gradients(probe)[1:]
    single = copy.deepcopy(flow).float()
    own = probe.of(single)
    value = difference(own.log_prob(), exact)
    assert value <= 1e-4, f"log_prob is off by {value:.1e} (relative)"
    distance = _distance([g.double() for g in gradients(own)[1:]], slopes)
    assert distance <= 1e-3, f"gradients are off by {distance:.1e}"
    return f"log_prob {value:.0e}, gradients {distance:.0e}"
