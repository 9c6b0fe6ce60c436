"""Arithmetic on lists of tensors is the same with torch's own operations and without them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowzoo.ops import lists


def made(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((3,), (2, 4), ())]


@pytest.mark.parametrize("has", [True, False], ids=["one call", "a loop"])
def test_each_tensor_is_written(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has:
        for name in ("_foreach_lerp_", "_foreach_copy_", "_foreach_mul_"):
            monkeypatch.delattr(torch, name)
    targets, sources = made(0), made(1)
    lists.lerp_(targets, sources, 0.25)
    torch.testing.assert_close(targets, [0.75 * t + 0.25 * s for t, s in zip(made(0), sources, strict=True)])
    lists.scale_(targets, torch.tensor(0.0))
    assert not any(bool(t.any()) for t in targets)
    lists.copy_(targets, sources)
    assert all(map(torch.equal, targets, sources))
