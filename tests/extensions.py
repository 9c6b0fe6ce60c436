"""Throw-away distributions that announce optimizers, schedules, augmentations, objectives and loggers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowzoo.registry.extensions import reset_extensions

SOURCE = """
import torch
from torch import optim


class Counting(optim.Optimizer):
    '''Sign descent whose steps shrink with numbers that it keeps for itself, as ints and floats.'''

    def __init__(self, params, lr=1e-3, shrink=0.9, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "shrink": shrink, "weight_decay": weight_decay, "scale": 1.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                state["count"] = state.get("count", 0) + 1
                state["mean"] = state.get("mean", torch.zeros((), device=p.device)) + p.grad.mean() / 8
                p.sub_(p.grad.sign() + state["mean"], alpha=group["lr"] * group["scale"] / state["count"] ** 0.5)
            group["scale"] *= group["shrink"]


class Hoarding(optim.SGD):
    def step(self):
        super().step()
        for p in self.param_groups[0]["params"]:
            self.state[p]["history"] = [1, 2]


def sawtooth(step, length, teeth=2, low=0.1):
    return low + (1 - low) * ((step * teeth) % length) / length


def negative(step, length):
    return -1.0


def invert(images, seed, step, places):
    chosen = (places + step + seed) % 2 == 0
    return torch.where(chosen[:, None, None, None], 255 - images, images)


def to_float(images, seed, step, places):
    return images.float()


def squared(flow, log_prob, x, noise, y):
    return flow.per_dim(log_prob(x, noise, y)) ** 2


class Lines:
    '''A logger that writes a line for each row.'''

    def on_start(self, training):
        self.file = (training.run / "lines.txt").open("a")

    def on_row(self, row):
        self.file.write(f"{row['kind']} {row.get('step')}\\n")

    def close(self):
        self.file.close()
"""
GROUPS = {
    "flowzoo.optimizers": {"counting": "Counting", "hoarding": "Hoarding", "gone": "Missing"},
    "flowzoo.schedules": {"sawtooth": "sawtooth", "negative": "negative"},
    "flowzoo.augmentations": {"invert": "invert", "to-float": "to_float"},
    "flowzoo.objectives": {"squared": "squared"},
    "flowzoo.loggers": {"lines": "Lines"},
}


@contextmanager
def installed(site: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.5") -> Iterator[None]:
    """The distribution ``extras-made-up``, installed as pip would, for as long as the block lasts."""
    info = site / f"extras_made_up-{version}.dist-info"
    info.mkdir(parents=True)
    (site / "extras_made_up.py").write_text(SOURCE)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: extras-made-up\nVersion: {version}\n")
    lines = []
    for group, entries in GROUPS.items():
        lines += [f"[{group}]", *(f"{name} = extras_made_up:{value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        reset_extensions()
        yield
    reset_extensions()
    sys.modules.pop("extras_made_up", None)
