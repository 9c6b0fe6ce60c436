"""Capabilities of parameters as ordinary tensors: saved, flattened, optimised, reparametrised, changed in any way."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, parametrizations, prune, vector_to_parameters

from flowzoo import engine
from flowzoo.flow import Flow
from flowzoo.testing.capabilities.probe import (
    NUMERIC,
    STEP,
    Probe,
    agree,
    along,
    difference,
    directions,
    gradients,
    plain,
    plain_gradients,
    plain_log_prob,
    slope,
    worst,
)


def saved_as_safetensors(flow: Flow) -> str:
    """``safetensors.torch.save_file(flow.state_dict())`` works and keeps every value."""
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(flow.state_dict(), path)
        twin = copy.deepcopy(flow)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        twin.load_state_dict(load_file(path))
    same = all(torch.equal(a, b) for a, b in zip(flow.parameters(), twin.parameters(), strict=True))
    assert same, "parameters change"
    return "identical"


def flattened(flow: Flow) -> str:
    """Parameters are contiguous and go to one vector and back."""
    strided = [name for name, p in flow.named_parameters() if not p.is_contiguous()]
    assert not strided, f"not contiguous: {', '.join(strided[:3])}"
    probe, twin = Probe(flow), copy.deepcopy(flow)
    vector = parameters_to_vector(twin.parameters())
    vector_to_parameters(1.01 * vector.detach(), twin.parameters())
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.01)
        return worst([agree("log_prob", probe.of(twin).log_prob(), probe.log_prob())])


def lbfgs(flow: Flow) -> str:
    """Steps of LBFGS with a line search improve the likelihood as those of the plain model do."""
    probe = Probe(flow, 4)
    start = float(-plain_log_prob(probe).mean())

    def step(flow: Flow) -> float:
        own = probe.of(flow)
        optimizer = torch.optim.LBFGS(flow.parameters(), max_iter=3, line_search_fn="strong_wolfe")

        def closure() -> float:
            optimizer.zero_grad()
            loss = -own.log_prob().mean()
            loss.backward()
            return float(loss)

        optimizer.step(closure)
        return float(-plain_log_prob(own).mean())

    twin = plain(flow)
    with engine.disabled():
        expected = step(twin)
    found = step(flow)
    assert found < start, f"the loss went from {start:.4f} to {found:.4f}"
    assert abs(found - expected) <= 1e-6 * abs(expected), f"the loss is {found!r}; plainly {expected!r}"
    return f"{start:.1f} to {found:.1f} nats"


def largest_kernel(flow: Flow) -> tuple[nn.Module, str]:
    """The module of the bijector that holds the largest parameter of two or more dimensions, and its name there."""
    found = [
        (parameter.numel(), module, name)
        for module in flow.bijector.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.ndim >= 2
    ]
    assert found, "the flow has no parameter of two dimensions"
    _, module, name = max(found, key=lambda entry: entry[0])
    return module, name


def pruned(flow: Flow) -> str:
    """``prune.random_unstructured``, twice: as if the weights were zero, values and gradients, over two steps."""
    probe, (module, name) = Probe(flow), largest_kernel(flow)
    place = [id(p) for p in flow.parameters()].index(id(module._parameters[name]))
    twin, errors = plain(flow), []
    for _ in range(2):
        prune.random_unstructured(module, name, 0.3)
        mask, original = getattr(module, f"{name}_mask"), getattr(module, f"{name}_orig")
        with torch.no_grad():
            list(twin.parameters())[place].mul_(mask)
        expected = plain_gradients(probe.of(twin))[1:][place] * mask
        errors.append(agree("values", probe.log_prob(), plain_log_prob(probe.of(twin))))
        for _ in range(2):
            flow.zero_grad()
            probe.total().backward()
            errors.append(agree("gradient", original.grad, expected))
    return worst(errors)


def weight_norm(flow: Flow) -> str:
    """``parametrizations.weight_norm``: the same values, and gradients that finite differences confirm."""
    return _reparametrised(flow, parametrizations.weight_norm, same=True)


def legacy_weight_norm(flow: Flow) -> str:
    """The old ``nn.utils.weight_norm``, which is a hook: the same as the parametrization."""

    def apply(module: nn.Module, name: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(module, name)

    return _reparametrised(flow, apply, same=True)


def spectral_norm(flow: Flow) -> str:
    """``parametrizations.spectral_norm``: values and gradients as plainly."""
    return _reparametrised(flow, parametrizations.spectral_norm, same=False)


def legacy_spectral_norm(flow: Flow) -> str:
    """The old ``nn.utils.spectral_norm``, which is a hook: it takes effect."""
    return _reparametrised(flow, nn.utils.spectral_norm, same=False)


def _reparametrised(flow: Flow, apply: Callable[[nn.Module, str], object], *, same: bool) -> str:
    """Asserts that a reparametrised layer computes as plainly, with gradients that finite differences confirm."""
    probe, (module, name) = Probe(flow), largest_kernel(flow)
    before, weight = plain_log_prob(probe), module.get_parameter(name).detach().clone()
    with torch.random.fork_rng([]):
        # Spectral norms begin at random vectors.
        torch.manual_seed(0)
        apply(module, name)
    if not same:
        # They are estimated in training alone.
        module.train()
        for _ in range(5):
            probe.log_prob()
        module.eval()
    with torch.no_grad():
        after = probe.log_prob()
        with engine.disabled():
            errors = [agree("plain values", after, probe.log_prob())]
    if same:
        errors.append(agree("values", after, before))
    else:
        # Not every layer's output follows its weight's length.
        effect = difference(getattr(module, name), weight)
        assert effect > 1e-6, "the reparametrization has no effect"
    leaves = list(module.parameters())
    way = directions(leaves)
    found = along(torch.autograd.grad(probe.total(), leaves), way)

    def shifted(step: float) -> Tensor:
        for leaf, direction in zip(leaves, way, strict=True):
            leaf.add_(direction, alpha=step)
        value = probe.total()
        for leaf, direction in zip(leaves, way, strict=True):
            leaf.sub_(direction, alpha=step)
        return value

    with torch.no_grad():
        # Divided by its norm a weight hardly moves the likelihood: small steps would drown in its rounding.
        step = STEP if same else 100 * STEP
        errors.append(agree("gradient", found, slope(shifted, step), NUMERIC))
    return worst(errors)


def trained_by_adam(flow: Flow) -> str:
    """Steps of Adam lead to the same weights as the plain model's."""
    probe = Probe(flow, 4)
    twin = plain(flow)
    for model in (flow, twin):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        own = probe.of(model)
        for _ in range(3):
            optimizer.zero_grad()
            with engine.disabled() if model is twin else torch.enable_grad():
                (-own.log_prob().mean()).backward()
            optimizer.step()
    error = agree("weights", list(flow.parameters()), list(twin.parameters()), 1e-6)
    return worst([error, agree("gradients", gradients(probe), plain_gradients(probe), 1e-6)])
