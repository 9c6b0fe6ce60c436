"""The table behind ``Flow.summary()``: one row a bijector, with output shape and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector

if TYPE_CHECKING:
    from flowzoo.flow import Flow


@torch.no_grad()
def summarize(flow: Flow) -> str:
    """Runs one blank image through the flow and describes what each bijector made of it."""
    rows = _rows(flow)
    header = ("bijector", "output shape", "parameters")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in [header, *rows]]
    total = sum(p.numel() for p in flow.parameters())
    noise = sum(p.numel() for p in flow.dequantization.parameters())
    bound = ", a lower bound" if flow.is_lower_bound else ""
    lines += [
        "",
        _data_line(flow),
        f"dequantization: {type(flow.dequantization).__name__} ({noise:,} parameters{bound})",
        f"base: {type(flow.base).__name__}",
        f"total: {total:,} parameters",
    ]
    return "\n".join(line.rstrip() for line in lines)


def _data_line(flow: Flow) -> str:
    labels = "" if flow.labels is None else f", given one of {flow.labels.classes} labels"
    if flow.data_kind == "vectors":
        return f"vectors of {flow.dims} numbers{labels}"
    return f"images {flow.image_shape}, {flow.n_bits} bits, D = {flow.dims}{labels}"


def _rows(flow: Flow) -> list[tuple[str, str, str]]:
    shapes: dict[nn.Module, str] = {}

    def record(module: nn.Module, _: object, output: tuple[Tensor, Tensor]) -> None:
        shapes[module] = " x ".join(map(str, output[0].shape[1:]))

    bijectors = [(name, m) for name, m in flow.bijector.named_modules() if isinstance(m, Bijector)]
    hooks = [module.register_forward_hook(record) for _, module in bijectors]
    training = flow.training
    try:
        flow.eval()
        tensor = next(flow.parameters(), torch.empty(0))
        v = torch.full((1, *flow.data_shape), 0.5, device=tensor.device, dtype=tensor.dtype)
        if flow.augmentation is not None:
            v, _ = flow.augmentation(v, central=True)
        flow.bijector(v, flow.context_of(None if flow.labels is None else 0, 1))
    finally:
        flow.train(training)
        for hook in hooks:
            hook.remove()
    names = {name for name, _ in bijectors}
    return [
        (
            "  " * _depth(name, names) + type(module).__name__,
            shapes.get(module, ""),
            f"{sum(p.numel() for p in module.parameters()):,}",
        )
        for name, module in bijectors
    ]


def _depth(name: str, bijectors: set[str]) -> int:
    """How many bijectors a module of this name is in."""
    parts = name.split(".") if name else []
    around = {".".join(parts[:end]) for end in range(len(parts))}
    return len(around & bijectors)
