"""Attention repeats its gradients bit for bit where a training asks for that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from flowzoo.ops.attention import attention


@pytest.fixture
def warning_only() -> Iterator[None]:
    """Deterministic kernels where there are any, as a training asks for them."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def test_the_fused_kernels_are_asked_for_determinism_itself(
    warning_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GPU they warn and stay as they are when no more than a warning is asked for."""
    asked = []
    fused, grad = F.scaled_dot_product_attention, torch.autograd.grad

    def note(name: str) -> None:
        strict = not torch.is_deterministic_algorithms_warn_only_enabled()
        asked.append((name, torch.are_deterministic_algorithms_enabled() and strict))

    def watched(*inputs: Any) -> Any:
        note("forward")
        return fused(*inputs)

    def watched_grad(*inputs: Any, **options: Any) -> Any:
        note("backward")
        return grad(*inputs, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    monkeypatch.setattr(torch.autograd, "grad", watched_grad)
    q, k, v = (torch.randn(2, 3, 5, 4, requires_grad=True) for _ in range(3))
    attention(q, k, v).square().sum().backward()
    assert asked == [("forward", True), ("backward", True)]
    assert torch.is_deterministic_algorithms_warn_only_enabled(), "and the training's own choice is back"


def test_otherwise_nothing_is_asked() -> None:
    q, k, v = (torch.randn(2, 3, 5, 4, requires_grad=True) for _ in range(3))
    attention(q, k, v).sum().backward()
    assert not torch.are_deterministic_algorithms_enabled()
