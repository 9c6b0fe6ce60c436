"""Where a number stopped being one: the first layer whose output is not finite, and its statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowzoo.flow import Flow


class _Found(Exception):
    def __init__(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        super().__init__(name)
        self.name, self.kind, self.inputs, self.output = name, type(module).__name__, inputs, output


def diagnose(flow: Flow, images: Tensor, noise: Tensor) -> str:
    """Finds the first offending layer for a batch; failing that, a weight or gradient.

    Args:
        flow: The model, with the gradients that were not finite still in place.
        images: uint8 ``(B, C, H, W)``.
        noise: The noise of the step, ``(B, C, H, W)``.

    Returns:
        A sentence that names the layer and gives the statistics of its input and output.
    """
    bad_weight = next((n for n, p in flow.named_parameters() if not bool(p.isfinite().all())), None)
    if bad_weight is not None:
        tensor = dict(flow.named_parameters())[bad_weight]
        return f"the parameter {bad_weight!r} is not finite any more ({statistics(tensor)})"
    try:
        with torch.no_grad():
            _run_with_hooks(flow, images, noise)
    except _Found as found:
        before = ", ".join(statistics(t) for t in _tensors(found.inputs)) or "no tensors"
        after = ", ".join(statistics(t) for t in _tensors(found.output))
        return f"the first offending layer is {found.name!r} ({found.kind}): input {before}; output {after}"
    for name, parameter in reversed(list(flow.named_parameters())):
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            where = f"the gradient of {name!r} ({statistics(parameter.grad)})"
            return f"the forward pass is finite; the first offending gradient on the way back is {where}"
    return (
        "forward pass and gradients are finite now; an operation that is not deterministic, or the hardware"
    )


def _run_with_hooks(flow: Flow, images: Tensor, noise: Tensor) -> None:
    handles = []
    for name, module in flow.named_modules():

        def check(m: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            if any(not bool(t.isfinite().all()) for t in _tensors(output)):
                raise _Found(name or "flow", m, inputs, output)

        handles.append(module.register_forward_hook(check))
    try:
        flow(images, noise)
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
