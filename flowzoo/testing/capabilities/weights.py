"""Capabilities of parameters as ordinary tensors: saved, flattened, optimised, reparametrised, changed in any way."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parameters_to_vector, prune, vector_to_parameters

from flowzoo import engine
from flowzoo.flow import Flow
from flowzoo.testing.capabilities.probe import (
    NUMERIC,
    Probe,
    agree,
    difference,
    gradients,
    plain,
    plain_gradients,
    plain_log_prob,
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
    """A step of LBFGS is the same as with the plain model, and improves the likelihood."""
    probe = Probe(flow, 4)
    start = float(-plain_log_prob(probe).mean())

    def step(flow: Flow) -> float:
        own = probe.of(flow)
        optimizer = torch.optim.LBFGS(flow.parameters(), lr=0.1, max_iter=4)

        def closure() -> float:
            optimizer.zero_grad()
            loss = -own.log_prob().mean()
            loss.backward()  # type: ignore[no-untyped-call]
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


def weighted_modules(flow: Flow) -> Iterator[nn.Module]:
    """Modules of the bijector with a parameter ``weight`` of at least two dimensions."""
    for module in flow.bijector.modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.ndim >= 2:
            yield module


def _first_weighted(flow: Flow) -> nn.Module:
    found = [m for m in weighted_modules(flow) if m._parameters["weight"].ndim >= 2]  # type: ignore[union-attr]
    assert found, "the flow has no layer with a parameter 'weight' of two dimensions"
    return max(found, key=lambda module: module._parameters["weight"].numel())  # type: ignore[union-attr]


def pruned(flow: Flow) -> str:
    """``prune.random_unstructured``, twice: as if the weights were zero, values and gradients, over two steps."""
    probe, module = Probe(flow), _first_weighted(flow)
    errors = []
    for _ in range(2):
        prune.random_unstructured(module, "weight", 0.3)  # type: ignore[no-untyped-call]
        twin = plain(_without_masks(flow, module))
        errors.append(agree("values", probe.log_prob(), plain_log_prob(probe.of(twin))))
        for _ in range(2):
            flow.zero_grad()
            probe.total().backward()  # type: ignore[no-untyped-call]
            found = module.weight_orig.grad
            assert isinstance(found, Tensor), "no gradient reaches the pruned weight"
            expected = plain_gradients(probe.of(twin))[1:]
            index = [id(m) for m in flow.modules()].index(id(module))
            place = [id(p) for p in twin.parameters()].index(id(list(twin.modules())[index].weight))
            errors.append(agree("gradient", found, expected[place] * module.weight_mask))
    return worst(errors)


@torch.no_grad()
def _without_masks(flow: Flow, module: nn.Module) -> Flow:
    """A copy of a flow in which a module's pruning is permanent."""
    index = [id(m) for m in flow.modules()].index(id(module))
    twin = copy.deepcopy(flow) if not hasattr(module, "weight_orig") else _detached_copy(flow, module)
    prune.remove(list(twin.modules())[index], "weight")  # type: ignore[no-untyped-call]
    return twin


def _detached_copy(flow: Flow, module: nn.Module) -> Flow:
    # The pruned weight is no leaf, which deepcopy refuses.
    module.weight = module.weight.detach()
    return copy.deepcopy(flow)


def weight_norm(flow: Flow) -> str:
    """``parametrizations.weight_norm``: the same values, and gradients that finite differences confirm."""
    return _reparametrised(flow, lambda module: parametrizations.weight_norm(module, "weight"), same=True)


def legacy_weight_norm(flow: Flow) -> str:
    """The old ``nn.utils.weight_norm``, which is a hook: the same as the parametrization."""

    def apply(module: nn.Module) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(module, "weight")  # type: ignore[no-untyped-call]

    return _reparametrised(flow, apply, same=True)


def spectral_norm(flow: Flow) -> str:
    """``parametrizations.spectral_norm``: values and gradients as plainly."""
    return _reparametrised(flow, lambda module: parametrizations.spectral_norm(module, "weight"), same=False)


def legacy_spectral_norm(flow: Flow) -> str:
    """The old ``nn.utils.spectral_norm``, which is a hook: it takes effect."""
    return _reparametrised(flow, lambda module: nn.utils.spectral_norm(module, "weight"), same=False)  # type: ignore[no-untyped-call]


def _reparametrised(flow: Flow, apply: Callable[[nn.Module], object], *, same: bool) -> str:
    """Asserts that a reparametrised layer has the effect that its weight has, with gradients by finite differences."""
    probe = Probe(flow)
    before, module = plain_log_prob(probe), _first_weighted(flow)
    apply(module)
    with torch.no_grad():
        after = probe.log_prob()
        effective = module.weight.detach().clone()
    errors = [agree("values", after, before)] if same else []
    if not same:
        assert difference(after, before) > 1e-6, "the reparametrization has no effect"
    with engine.disabled(), torch.no_grad():
        errors.append(agree("plain values", after, probe.log_prob()))
        agree("the layer's weight", module.weight, effective)
    (leaf,) = [p for p in list(module.parameters())[-1:] if p.requires_grad]
    (found,) = torch.autograd.grad(probe.total(), leaf)
    way = torch.ones_like(leaf) / leaf.numel() ** 0.5
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad(), engine.disabled():
            leaf.add_(way, alpha=step)
            values.append(probe.total())
            leaf.sub_(way, alpha=step)
    errors.append(agree("gradient", (found * way).sum(), (values[0] - values[1]) / 2e-6, NUMERIC))
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
                (-own.log_prob().mean()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    error = agree("weights", list(flow.parameters()), list(twin.parameters()), 1e-6)
    return worst([error, agree("gradients", gradients(probe), plain_gradients(probe), 1e-6)])
