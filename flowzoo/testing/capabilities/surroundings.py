"""Capabilities of what torch puts around a module: processes, DDP, FSDP, a default device, averaged weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, distributed, nn

from flowzoo.flow import Flow
from flowzoo.testing.capabilities.probe import (
    Probe,
    agree,
    plain_gradients,
    plain_log_prob,
    worst,
)


@contextmanager
def _one_process() -> Iterator[None]:
    """A process group of this process alone, over gloo."""
    if distributed.is_initialized():
        raise RuntimeError("a process group exists already; this check makes one of its own.")
    # A store inside this process; torch exports it without saying so.
    store: Any = vars(distributed)["HashStore"]()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def data_parallel(flow: Flow) -> str:
    """DDP with ``find_unused_parameters=True``: values, and gradients of a call that does not use all parameters."""
    probe = Probe(flow)
    expected = plain_gradients(probe)[1:]
    spare = nn.Parameter(torch.zeros(3).to(probe.noise))
    flow.register_parameter("spare", spare)
    with _one_process(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallel = nn.parallel.DistributedDataParallel(flow, find_unused_parameters=True)
        for _ in range(2):
            flow.zero_grad()
            with probe.drawing():
                value = parallel(*probe.arguments())
            value.sum().backward()
    found = [_gradient(p) for p in flow.parameters() if p is not spare]
    assert spare.grad is None or not spare.grad.any(), "an unused parameter got a gradient"
    return worst([agree("values", value, _log_prob(flow, probe)), agree("gradients", found, expected)])


def fully_sharded(flow: Flow) -> str:
    """FSDP2 (``fully_shard``) of the flow and of its couplings: values, gradients, and a step of an optimizer."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from flowzoo.bijectors import Coupling

    probe = Probe(flow)
    value, slopes = plain_log_prob(probe), plain_gradients(probe)[1:]
    stepped = copy.deepcopy(flow)
    with torch.no_grad():
        for parameter, slope in zip(stepped.parameters(), slopes, strict=True):
            parameter.sub_(slope, alpha=1e-6)
    after = plain_log_prob(probe.of(stepped))
    with _one_process():
        mesh = init_device_mesh(probe.noise.device.type, (1,))
        for coupling in [module for module in flow.modules() if isinstance(module, Coupling)]:
            fully_shard(coupling, mesh=mesh)
        try:
            sharded: Any = fully_shard(flow, mesh=mesh)
        except ValueError as error:
            if "scalar parameters" not in str(error):
                raise
            return "refused in one line: torch shards no scalar parameters"
        optimizer = torch.optim.SGD(sharded.parameters(), lr=1e-6)
        with probe.drawing():
            found = sharded(*probe.arguments())
        found.sum().backward()
        gradients = [_gradient(p) for p in sharded.parameters()]
        optimizer.step()
        with torch.no_grad(), probe.drawing():
            later = sharded(*probe.arguments())
    errors = [agree("values", found, value), agree("gradients", gradients, slopes)]
    return worst([*errors, agree("values after a step", later, after)])


def _gradient(parameter: Tensor) -> Tensor:
    """A parameter's gradient as a plain tensor; zeros where there is none."""
    gradient: Any = parameter.grad
    whole: Any = parameter if gradient is None else gradient
    whole = whole.full_tensor() if hasattr(whole, "full_tensor") else whole
    plain: Tensor = torch.zeros_like(whole) if gradient is None else whole
    return plain.detach().clone()


def _log_prob(flow: Flow, probe: Probe) -> Tensor:
    with torch.no_grad():
        return probe.of(flow).log_prob()


def forked(flow: Flow) -> str:
    """A forked process computes the same, also inside ``frozen``, and what it writes is its own."""
    if "fork" not in mp.get_all_start_methods():
        return "this system does not fork"
    probe = Probe(flow)
    context = mp.get_context("fork")
    answers = context.SimpleQueue()
    with torch.no_grad(), flow.frozen():
        before = probe.log_prob()
        process = context.Process(target=_in_a_fork, args=(probe, answers))
        process.start()
        process.join(timeout=300)
        assert process.exitcode == 0, f"the process ended with exit code {process.exitcode}"
        there, changed = (
            torch.tensor(values, dtype=torch.float64).to(probe.noise) for values in answers.get()
        )
        errors = [agree("values there", there, before), agree("values here", probe.log_prob(), before)]
    assert not torch.equal(changed, before), "weights written in the fork have no effect there"
    return worst(errors)


@torch.no_grad()
def _in_a_fork(probe: Probe, answers: Any) -> None:
    # What OpenMP holds is not usable after a fork.
    torch.set_num_threads(1)
    first = probe.log_prob().tolist()
    twin = copy.deepcopy(probe.flow)
    for parameter in twin.parameters():
        parameter.mul_(1.05)
    answers.put((first, probe.of(twin).log_prob().tolist()))


def default_device(flow: Flow) -> str:
    """``torch.set_default_device`` elsewhere changes nothing: tensors are made where the flow is."""
    probe = Probe(flow)
    expected, slopes = plain_log_prob(probe), plain_gradients(probe)[1:]
    before = torch.get_default_device()
    # A device on which nothing can be computed: whatever is made there by mistake fails.
    torch.set_default_device("meta")
    try:
        with probe.drawing():
            value = flow(*probe.arguments())
        found = torch.autograd.grad(value.sum(), list(flow.parameters()), allow_unused=True)
        with torch.no_grad():
            z = flow.encode(probe.x)
            images = flow.decode(z)
            drawn = flow.sample(2, generator=torch.Generator("cpu").manual_seed(0))
    finally:
        torch.set_default_device(before)
    assert torch.equal(images, probe.x), "encode and decode do not give the images back"
    assert drawn.device == probe.x.device, f"samples are on {drawn.device}"
    given: list[Tensor | None] = list(found)
    pairs = [(f, s) for f, s in zip(given, slopes, strict=True) if f is not None]
    gradients = agree("gradients", [f for f, _ in pairs], [s for _, s in pairs])
    return worst([agree("values", value, expected), gradients])


def averaged(flow: Flow) -> str:
    """``AveragedModel`` holds and computes with the mean of the weights that it was given."""
    probe = Probe(flow)
    twin = copy.deepcopy(flow)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.02)
    averaged = torch.optim.swa_utils.AveragedModel(flow)
    averaged.update_parameters(flow)
    averaged.update_parameters(twin)
    mean: Any = averaged.module
    weights = agree("weights", list(mean.parameters()), [1.01 * p for p in flow.parameters()])
    with torch.no_grad(), probe.drawing():
        value = averaged(*probe.arguments())
    return worst([weights, agree("values", value, plain_log_prob(probe.of(mean)))])
