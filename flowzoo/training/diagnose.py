"""The cause of an update that is not finite: a weight, a layer, a fused operation, a gradient."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowzoo.data.pipeline import Batch
    from flowzoo.flow import Flow
    from flowzoo.training.step import Gradients, GradientStep


class _Found(Exception):
    def __init__(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        super().__init__(name)
        self.name, self.kind, self.inputs, self.output = name, type(module).__name__, inputs, output


def diagnose(step: GradientStep, batch: Batch) -> str:
    """Finds the cause of an update that is not finite.

    The batch is computed again, first exactly as training did (fused, compiled, on all processes), then layer by
    layer without any of that. Only where both agree is a layer to blame. All processes call this together.

    Args:
        step: Computes the gradients, for the weights that they were not finite with.
        batch: This process's share of the batch.

    Returns:
        Words that name the layer, parameter or way of computing, with the statistics of its tensors.
    """
    flow = step.flow
    for name, parameter in flow.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"the parameter {name!r} is not finite any more ({statistics(parameter)})"
    # Passes in training mode move running statistics, which the failed update has moved already.
    before = {name: buffer.clone() for name, buffer in flow.named_buffers()}
    trained = step(batch, clip=False)
    gradient = _first_bad_gradient(flow)
    with _engine_disabled():
        layer = _first_bad_layer(step, batch)
        plain = step(batch, plain=True, clip=False)
        plain_gradient = _first_bad_gradient(flow)
    with torch.no_grad():
        for name, buffer in flow.named_buffers():
            buffer.copy_(before.get(name, buffer))
    return _verdict(trained, gradient, layer, plain, plain_gradient)


def _verdict(
    trained: Gradients, gradient: str | None, layer: str | None, plain: Gradients, plain_gradient: str | None
) -> str:
    if layer is not None:
        only = "" if not trained.finite else "; computed as in training, the batch is finite now"
        return f"the first offending layer is {layer}{only}"
    if gradient is None and trained.finite:
        if plain_gradient is not None:
            return (
                f"as in training, all is finite now; layer by layer, the gradient of {plain_gradient} is not"
            )
        return (
            "the same batch with the same weights is finite now, both as in training and layer by layer: an operation "
            "that is not deterministic, or the hardware"
        )
    if plain.finite and plain_gradient is None:
        part = f"the gradient of {gradient}"
        if gradient is None or not math.isfinite(trained.loss):
            part = f"the loss, {trained.loss},"
        return (
            f"computed again as in training, {part} is not finite; layer by layer, loss and gradients are "
            f"(loss {plain.loss:.4f}): a fused or compiled operation is at fault, not the model. Train with "
            "FLOWZOO_ENGINE=0 or train.compile=false, and report it"
        )
    where = plain_gradient or gradient or "no single parameter"
    return f"the forward pass is finite; the first offending gradient on the way back is that of {where}"


@contextlib.contextmanager
def _engine_disabled() -> Iterator[None]:
    """Computes everything layer by layer, if there is an engine that would not."""
    try:
        from flowzoo.engine import disabled
    except ImportError:
        yield
        return
    with disabled():
        yield


def _first_bad_gradient(flow: Flow) -> str | None:
    """The last parameter, whose gradient comes first, with one that is not finite."""
    for name, parameter in reversed(list(flow.named_parameters())):
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            return f"{name!r} ({statistics(parameter.grad)})"
    return None


@torch.no_grad()
def _first_bad_layer(step: GradientStep, batch: Batch) -> str | None:
    """Runs the forward pass layer by layer; the first whose output is not finite, in words."""
    step.seed(batch)
    with _hooks(step.flow):
        try:
            for images, noise, labels in step.parts(batch):
                step.flow(images, noise, labels)
        except _Found as found:
            before = ", ".join(statistics(t) for t in _tensors(found.inputs)) or "no tensors"
            after = ", ".join(statistics(t) for t in _tensors(found.output))
            return f"{found.name!r} ({found.kind}): input {before}; output {after}"
    return None


@contextlib.contextmanager
def _hooks(flow: Flow) -> Iterator[None]:
    """Raises at the first layer whose output is not finite."""
    handles = []
    for name, module in flow.named_modules():

        def check(m: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            if any(not bool(t.isfinite().all()) for t in _tensors(output)):
                raise _Found(name or "flow", m, inputs, output)

        handles.append(module.register_forward_hook(check))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def statistics(tensor: Tensor) -> str:
    """Shape, range and share of non-finite values, in words."""
    values = tensor.detach().float()
    finite = values[values.isfinite()]
    bad = values.numel() - finite.numel()
    extent = "nothing finite"
    if finite.numel():
        extent = f"{finite.min().item():.4g} to {finite.max().item():.4g}, mean {finite.mean().item():.4g}"
    return f"{tuple(tensor.shape)}: {extent}, {bad} of {values.numel()} not finite"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
