"""The moving average follows, starts after initialization, and is evaluated in full precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from flowzoo.training.ema import Ema
from flowzoo.training.export import load_run
from flowzoo.training.train import build_model, train_flow
from flowzoo.training.validation import validate
from tests.trainings import CPU, image_set, tiny_recipe

if TYPE_CHECKING:
    from pathlib import Path


def shifted(decay: float, updates: int) -> tuple[float, float]:
    """Weights jump by 1 after the average is made; returns how far it followed, expected and found."""
    flow = build_model(tiny_recipe())
    ema = Ema(flow, decay)
    before = next(flow.parameters()).detach().clone()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(1.0)
    expected = 1.0
    for step in range(updates):
        ema.update(step)
        expected *= min(decay, (1 + step) / (10 + step))
    found = (next(ema.flow.parameters()) - before).mean().item()
    return 1.0 - expected, found


def test_it_follows_with_a_decay_that_warms_up() -> None:
    for decay, updates in ((0.5, 1), (0.5, 30), (0.999, 20), (0.0, 1)):
        expected, found = shifted(decay, updates)
        assert abs(found - expected) < 1e-5


def test_it_has_its_own_weights_and_full_precision() -> None:
    flow = build_model(tiny_recipe())
    flow.set_network_dtype(torch.bfloat16)
    ema = Ema(flow, 0.9)
    assert not {p.data_ptr() for p in flow.parameters()} & {p.data_ptr() for p in ema.flow.parameters()}
    assert all(getattr(m, "network_dtype", None) is None for m in ema.flow.modules())
    assert not any(p.requires_grad for p in ema.flow.parameters())
    assert not ema.ready().training


def test_buffers_follow_even_when_replaced() -> None:
    flow = build_model(tiny_recipe("realnvp-tiny"))
    ema = Ema(flow, 0.0)
    module = next(m for m in flow.modules() if hasattr(m, "running_mean"))
    module.running_mean = torch.full_like(module.running_mean, 3.0)  # type: ignore[arg-type]
    ema.update(0)
    mine = next(m for m in ema.flow.modules() if hasattr(m, "running_mean"))
    assert torch.equal(mine.running_mean, module.running_mean)  # type: ignore[arg-type]


def test_caches_of_older_weights_are_dropped() -> None:
    flow = build_model(tiny_recipe()).train()
    ema = Ema(flow, 0.0)
    z = torch.randn(2, 64)
    ema.ready().decode(z)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ema.update(0)
    assert torch.equal(ema.ready().decode(z), flow.eval().decode(z))


def test_averaged_weights_are_evaluated_with_statistics_that_fit_them(tmp_path: Path) -> None:
    """Batch norm: averaged running averages give what statistics taken anew, of the averaged weights, give."""
    recipe = tiny_recipe("realnvp-tiny", steps=30, validate_every=30, samples=0)
    images, held_out = image_set(160), image_set(100, seed=1)
    train_flow(build_model(recipe), recipe, tmp_path, (images, held_out), CPU, progress=False)
    flow = load_run(tmp_path, "last")
    found = validate(flow, held_out, CPU).value
    before = {name: buffer.clone() for name, buffer in flow.named_buffers()}
    flow.train()
    with torch.no_grad():
        for start in range(0, 160 * 4, 40):
            flow.log_prob(images.batch(torch.arange(start, start + 40) % 160))
    anew = validate(flow.eval(), held_out, CPU).value
    assert any(not torch.equal(before[name], buffer) for name, buffer in flow.named_buffers())
    assert abs(found - anew) < 0.05
