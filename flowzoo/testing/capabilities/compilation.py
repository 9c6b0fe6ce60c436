"""Capabilities of ``torch.compile``, ``torch.export`` and ``torch.jit.trace``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flowzoo.errors import FlowzooError
from flowzoo.flow import Flow
from flowzoo.nets.precision import DROPOUTS
from flowzoo.testing.capabilities.probe import (
    NOT_OF_DRAWS,
    Probe,
    agree,
    draws,
    plain_gradients,
    plain_log_prob,
    worst,
)

SINGLE = 1e-3
"""Largest relative difference of what a compiler makes of a float32 model."""


def compiled(flow: Flow) -> str:
    """``torch.compile`` with Inductor in evaluation: the log-probabilities, before and after weights change."""
    return _compiled(flow, training=False, backend="inductor")


def compiled_training(flow: Flow) -> str:
    """``torch.compile`` with Inductor in train mode: values and gradients."""
    return _compiled(flow, training=True, backend="inductor")


def traced_by_dynamo(flow: Flow) -> str:
    """``torch.compile`` without generated code (``aot_eager``), in evaluation and training."""
    return f"{_compiled(flow, False, 'aot_eager')}; {_compiled(flow, True, 'aot_eager')}"


def _compiled(flow: Flow, training: bool, backend: str) -> str:
    probe = Probe(flow.float().train(training), 2)
    for module in flow.modules():
        if isinstance(module, DROPOUTS):
            # Compiled code draws other random numbers.
            module.p = 0.0
    torch.compiler.reset()
    try:
        # In one graph: what the compiler leaves to Python would be compared with itself.
        fast: Any = torch.compile(flow, backend=backend, fullgraph=True)
        errors = []
        for _ in range(2):
            expected = plain_log_prob(probe)
            if training:
                flow.zero_grad()
                value = fast(probe.x, probe.noise)
                value.sum().backward()
                slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in flow.parameters()]
                errors.append(agree("gradients", slopes, plain_gradients(probe)[1:], SINGLE))
            else:
                with torch.no_grad():
                    value = fast(probe.x, probe.noise)
            errors.append(agree("values", value, expected, SINGLE))
            for parameter in flow.parameters():
                parameter.data.mul_(1.01)
    finally:
        torch.compiler.reset()
    return worst(errors)


class _LogProb(nn.Module):
    """log_prob as a module, which is what is exported and traced."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Log-probabilities ``(B,)``."""
        return self.flow.log_prob(x, noise=noise)


class _Inverse(nn.Module):
    """The bijector's inverse as a module."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.bijector = flow.bijector

    def forward(self, z: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in the unit cube."""
        y: Tensor = self.bijector.inverse(z)[0]
        return y


def _targets(flow: Flow) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """The modules that are exported and traced, with their inputs."""
    probe = Probe(flow.float(), 2)
    with torch.no_grad():
        z = flow.bijector(probe.unit_batch())[0]
    return {
        "log_prob": (_LogProb(flow), (probe.x, probe.noise)),
        "bijector": (flow.bijector, (probe.unit_batch(),)),
        "inverse": (_Inverse(flow), (z,)),
    }


def exported(flow: Flow) -> str:
    """``torch.export`` of log_prob, the bijector and its inverse gives programs of the same values."""
    errors = []
    for name, (module, inputs) in _targets(flow).items():
        for recorded in (False, True):
            with torch.set_grad_enabled(recorded):
                program = torch.export.export(module, inputs).module()
                errors.append(_same(f"{name}, gradients {recorded}", module, program, inputs))
    return worst(errors)


def exported_for_any_batch(flow: Flow) -> str:
    """``torch.export`` with a dynamic batch size runs on another batch."""
    errors = []
    batch = torch.export.Dim("batch", min=2, max=64)
    for name, (module, inputs) in _targets(flow).items():
        shapes = tuple({0: batch} for _ in inputs)
        program = torch.export.export(module, inputs, dynamic_shapes=shapes).module()
        errors.append(_same(name, module, program, tuple(torch.cat((t, t, t)) for t in inputs)))
    return worst(errors)


def traced(flow: Flow) -> str:
    """``torch.jit.trace`` gives programs of the same values, or one clear error."""
    if draws(flow):
        return NOT_OF_DRAWS
    errors, refused = [0.0], 0
    targets = _targets(flow)
    for name, (module, inputs) in targets.items():
        for recorded in (False, True):
            with torch.set_grad_enabled(recorded), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    program: Callable[..., Any] = torch.jit.trace(module, inputs, check_trace=False)
                except FlowzooError as error:
                    if "trace" not in str(error):
                        raise
                    refused += 1
                    continue
                errors.append(_same(f"{name}, gradients {recorded}", module, program, inputs))
    assert refused in (0, 2 * len(targets)), f"{refused} of {2 * len(targets)} refused"
    return "refused in one line" if refused else worst(errors)


def _same(name: str, module: nn.Module, program: Callable[..., Any], inputs: tuple[Tensor, ...]) -> float:
    found, expected = program(*inputs), module(*inputs)
    pairs = [(found, expected)] if isinstance(found, Tensor) else zip(found, expected, strict=True)
    return max(agree(name, f, e, SINGLE) for f, e in pairs)
