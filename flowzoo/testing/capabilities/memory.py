"""Capabilities that could depend on what the backward pass keeps: in-place changes, hooks of parameters, threads."""

from __future__ import annotations

import contextvars
import copy
import threading
from collections import Counter
from functools import partial

import torch
from torch import Tensor

from flowzoo.flow import Flow
from flowzoo.nets.precision import DROPOUTS
from flowzoo.testing.capabilities.probe import (
    MODES,
    Probe,
    agree,
    gradients,
    one_line,
    plain_gradients,
    worst,
)
from flowzoo.testing.capabilities.transforms import bound

THREADS = 4


def changed_before_backward(flow: Flow) -> str:
    """Weights changed in place between forward and backward raise torch's error in every memory mode.

    Where all that is saved was made of the weights, as by masks, the gradients are those of the weights before.
    """
    probe, before = Probe(flow), plain_gradients(Probe(flow))[1:]
    for mode in MODES:
        twin = copy.deepcopy(flow)
        twin.set_memory(mode)
        value = probe.of(twin).total()
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.mul_(1.1)
        try:
            value.backward()
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
        else:
            found = [torch.zeros_like(p) if p.grad is None else p.grad for p in twin.parameters()]
            agree(f"{mode}: no error, and the gradients of mixed weights", found, before)
    return "torch's error"


def parameter_hooks_once(flow: Flow) -> str:
    """Hooks of parameters and of gradients that have accumulated run once a backward pass in every memory mode."""
    probe = Probe(flow)
    for mode in MODES:
        twin = copy.deepcopy(flow)
        twin.set_memory(mode)
        calls: Counter[tuple[str, str]] = Counter()
        for name, parameter in twin.named_parameters():
            parameter.register_hook(partial(_count, calls, ("gradient", name)))
            parameter.register_post_accumulate_grad_hook(partial(_count, calls, ("accumulated", name)))
        probe.of(twin).total().backward()
        expected = [
            (kind, name) for kind in ("gradient", "accumulated") for name, _ in twin.named_parameters()
        ]
        wrong = [(key, calls[key]) for key in expected if calls[key] != 1]
        assert not wrong, f"{mode}: {len(wrong)} of {len(expected)} hooks did not run once, as {wrong[0]}"
    return "once"


def _count(calls: Counter[tuple[str, str]], key: tuple[str, str], _: Tensor) -> None:
    calls[key] += 1


def gradients_from_threads(flow: Flow) -> str:
    """Gradients from four threads at once are right in every memory mode, in train and eval mode."""
    for module in flow.modules():
        if isinstance(module, DROPOUTS):
            # Threads share the generator that dropout draws from.
            module.p = 0.0
    probes = [Probe(flow, seed=seed) for seed in range(THREADS)]
    momenta = [m.momentum for m in flow.modules() if hasattr(m, "momentum")]
    errors = []
    for training in (False, True):
        flow.train(training)
        for mode in MODES:
            flow.set_memory(mode)
            expected = [gradients(probe) for probe in probes]
            name = f"{'train' if training else 'eval'}, {mode}"
            errors += _compare_threads(name, probes, expected, bound(mode, flow))
    assert momenta == [m.momentum for m in flow.modules() if hasattr(m, "momentum")], "a momentum changed"
    return worst(errors)


def _compare_threads(
    name: str, probes: list[Probe], expected: list[list[Tensor]], bound: float
) -> list[float]:
    found: dict[int, list[Tensor] | BaseException] = {}
    start = threading.Barrier(len(probes))

    def run(index: int) -> None:
        start.wait()
        try:
            found[index] = gradients(probes[index])
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            found[index] = error

    # A new thread begins with the defaults of context variables, such as the engine's switch.
    contexts = [contextvars.copy_context() for _ in probes]
    threads = [threading.Thread(target=c.run, args=(run, i)) for i, c in enumerate(contexts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = []
    for index, own in enumerate(expected):
        result = found[index]
        assert not isinstance(result, BaseException), f"{name}: {one_line(result)}"
        errors.append(agree(f"{name}, thread {index}", result, own, bound))
    return errors
