"""Scaled dot-product attention that can be differentiated twice, and in forward mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.ops.autograd import (
    apply,
    in_forward_dtypes,
    is_traced,
    needs_plain,
    plain_backward,
    transforms_active,
)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Returns ``softmax(q k^T / sqrt(C)) v`` for q, k and v ``(B, heads, N, C)``."""
    if transforms_active():
        return _composed(query, key, value)
    recorded = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if not recorded or torch.compiler.is_compiling() or is_traced():
        return F.scaled_dot_product_attention(query, key, value)
    attended: Tensor = apply(_Attention, query, key, value)
    return attended


def _composed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return torch.softmax(scores, dim=-1) @ value


@contextlib.contextmanager
def _kernels() -> Iterator[None]:
    """Deterministic kernels where these are wished for: asked to warn only, the fused ones of a GPU do no more."""
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


class _Attention(torch.autograd.Function):
    """torch's fused attention, whose own backward pass has no derivative."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            ctx.aliases = [t.detach().requires_grad_() for t in inputs]
            with _kernels():
                ctx.attended = F.scaled_dot_product_attention(*ctx.aliases)
        ctx.save_for_backward(*inputs)
        attended: Tensor = ctx.attended.detach()
        return attended

    @staticmethod
    @in_forward_dtypes
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        inputs = ctx.saved_tensors
        if needs_plain(gradients):
            return tuple(plain_backward(lambda *t: [_composed(*t)], inputs, gradients, ctx.needs_input_grad))
        with _kernels():
            return torch.autograd.grad(ctx.attended, ctx.aliases, gradients, retain_graph=True)
