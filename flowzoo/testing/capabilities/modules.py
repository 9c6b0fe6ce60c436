"""Capabilities of a flow as an ``nn.Module``: copies, pickles, replicas, hooks, modes, processes."""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from flowzoo.flow import Flow
from flowzoo.testing.capabilities.probe import (
    Probe,
    agree,
    gradients,
    plain_gradients,
    plain_log_prob,
    worst,
)


def copied(flow: Flow) -> str:
    """``deepcopy`` of a flow that has been used gives the same flow, on its own."""
    probe = Probe(flow)
    expected = probe.log_prob()
    for twin in (copy.deepcopy(flow), copy.deepcopy(copy.deepcopy(flow))):
        assert torch.equal(probe.of(twin).log_prob(), expected), "a copy answers otherwise"
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.mul_(1.1)
        assert not torch.equal(probe.of(twin).log_prob(), expected), "a copy's weights have no effect"
        assert torch.equal(probe.log_prob(), expected), "changing a copy changes the original"
    return "identical"


def data_parallel_replicas(flow: Flow) -> str:
    """Replicas as ``nn.DataParallel`` makes them: parameters are plain tensors; gradients reach the originals."""
    probe = Probe(flow)
    replica = _replicate(flow)
    assert not list(replica.parameters()), "the replica has parameters"
    device, dtype = replica._placement()
    assert (device, dtype) == flow._placement(), f"the replica is said to be {dtype} on {device}"
    with probe.drawing():
        value = replica(*probe.arguments())
    errors = [agree("values", value, plain_log_prob(probe))]
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        value.sum(), list(flow.parameters()), allow_unused=True
    )
    missing = sum(g is None for g in found)
    assert not missing, f"{missing} of {len(found)} gradients do not reach the originals"
    errors.append(agree("gradients", [g for g in found if g is not None], plain_gradients(probe)[1:]))
    return worst(errors)


def _replicate(flow: Flow) -> Flow:
    """A replica of a flow, as ``torch.nn.parallel.replicate`` makes it for a device."""
    known: dict[int, Any] = {id(module): module._replicate_for_data_parallel() for module in flow.modules()}
    for module in flow.modules():
        twin = known[id(module)]
        for name, child in module._modules.items():
            twin._modules[name] = None if child is None else known[id(child)]
        for name, parameter in module._parameters.items():
            if parameter is None:
                twin._parameters[name] = None
            else:
                # No leaf, as a broadcast parameter is none.
                setattr(twin, name, parameter.view_as(parameter))
    replica: Flow = known[id(flow)]
    return replica


def leaf_hooks(flow: Flow) -> str:
    """Forward and backward hooks of every leaf module that has parameters run, and change no result."""
    probe = Probe(flow)
    leaves = {
        name: module
        for name, module in flow.named_modules()
        if not list(module.children()) and list(module.parameters())
    }
    calls: Counter[str] = Counter()
    handles = [m.register_forward_hook(partial(_count, calls, f"forward {n}")) for n, m in leaves.items()]
    errors = [agree("log_prob", probe.log_prob(), plain_log_prob(probe))]
    silent = [name for name in leaves if not calls[f"forward {name}"]]
    assert not silent, f"forward hooks of {len(silent)} of {len(leaves)} leaves never ran, as {silent[0]}"
    for handle in handles:
        handle.remove()
    handles = [
        m.register_full_backward_hook(partial(_count, calls, f"backward {n}")) for n, m in leaves.items()
    ]
    found = gradients(probe)
    for handle in handles:
        handle.remove()
    silent = [name for name in leaves if not calls[f"backward {name}"]]
    assert not silent, f"backward hooks of {len(silent)} of {len(leaves)} leaves never ran, as {silent[0]}"
    errors.append(agree("gradients", found, plain_gradients(probe)))
    return f"{len(leaves)} leaves, {worst(errors)}"


def _count(calls: Counter[str], key: str, *_: object) -> None:
    calls[key] += 1


def leaf_hooks_replace(flow: Flow) -> str:
    """A forward hook's result takes the place of a layer's output, and is gone when the hook is."""
    probe = Probe(flow)
    before = probe.log_prob()
    outputs: dict[str, object] = {}
    leaves = {
        n: m for n, m in flow.bijector.named_modules() if not list(m.children()) and list(m.parameters())
    }
    handles = [m.register_forward_hook(partial(_keep, outputs, n)) for n, m in leaves.items()]
    probe.log_prob()
    for handle in handles:
        handle.remove()
    layers = [name for name, output in outputs.items() if isinstance(output, Tensor)]
    if not layers:
        return "no layer that gives a tensor"
    handle = leaves[layers[-1]].register_forward_hook(lambda _m, _i, output: 1.1 * output + 0.1)
    assert not torch.equal(probe.log_prob(), before), f"the result of the hook of {layers[-1]} is ignored"
    handle.remove()
    return worst([agree("without it", probe.log_prob(), before)])


def _keep(outputs: dict[str, object], name: str, _module: nn.Module, _inputs: object, output: object) -> None:
    outputs[name] = output


def inference_mode(flow: Flow) -> str:
    """``torch.inference_mode`` gives the same values in both directions, and gradients work after it."""
    probe = Probe(flow)
    with torch.inference_mode():
        value = probe.log_prob()
        z = flow.encode(probe.x)
        flow.decode(z)
    errors = [agree("value", value, plain_log_prob(probe))]
    errors.append(agree("gradients", gradients(probe), plain_gradients(probe)))
    return worst(errors)


def empty_batch(flow: Flow) -> str:
    """A batch of no items goes through the bijector both ways."""
    y = Probe(flow).unit_batch()[:0]
    with torch.no_grad():
        z, log_det = flow.bijector(y)
        back, _ = flow.bijector.inverse(z)
    assert (z.shape, log_det.shape, back.shape) == ((0, flow.latent_dims), (0,), y.shape), "wrong shapes"
    return "empty results"


def shared_with_a_process(flow: Flow) -> str:
    """``share_memory`` and spawn: the other process computes the same, and its writes count here."""
    probe = Probe(flow)
    flow.share_memory()
    before = probe.log_prob().detach()
    context = mp.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_in_another_process, args=(probe, answers))
    process.start()
    process.join(timeout=300)
    assert process.exitcode == 0, f"the process ended with exit code {process.exitcode}"
    first, second = (torch.tensor(values, dtype=torch.float64).to(probe.noise) for values in answers.get())
    errors = [agree("values there", first, before)]
    assert not torch.equal(second, before), "the write has no effect"
    with torch.no_grad():
        errors.append(agree("values here after it wrote", probe.log_prob(), second))
    return worst(errors)


@torch.no_grad()
def _in_another_process(probe: Probe, answers: Any) -> None:
    first = probe.log_prob().tolist()
    for parameter in probe.flow.parameters():
        parameter.mul_(1.05)
    answers.put((first, probe.log_prob().tolist()))
