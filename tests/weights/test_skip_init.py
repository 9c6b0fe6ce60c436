"""Loading draws no parameters that it would replace, and gives what drawing them first gives, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flowzoo.factory import build_flow, create, resolve
from flowzoo.flow import Flow
from flowzoo.weights.checkpoint import load_weights, save_weights
from flowzoo.weights.load import load
from flowzoo.weights.skip_init import build_to_load, undrawn
from tests.probe import Probe, trained, write_directory

OURS = ("flowpp-tiny", "glow-tiny", "nice-tiny", "realnvp-tiny")

ODD_MODEL = """
import torch
from torch import nn
from flowzoo.bijectors import Bijector, Chain, DiagonalScaling, Flatten
from flowzoo.bijectors.base import zero_log_det
from flowzoo.flow import Flow
from flowzoo.nets.mlp import MLP

class Odd(Bijector):
    def __init__(self, dims):
        super().__init__()
        {body}

    def _forward(self, x, context):
        return x + self.shift() + self.net(torch.ones_like(x)).mean(), zero_log_det(x)

    def _inverse(self, z, context):
        return z - self.shift() - self.net(torch.ones_like(z)).mean(), zero_log_det(z)

def build(config):
    c, h, w = config.image_shape
    dims = c * h * w
    stack = Chain(Flatten(config.image_shape), Odd(dims), DiagonalScaling((dims,)))
    return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=stack)
"""

ODD = {
    "a constant from a stream that it seeds": """
        torch.manual_seed(7)
        self.net = MLP(dims, (8,), dims, 0.1)
        self.register_buffer("constant", torch.randn(dims), persistent=False)
        self.shift = lambda: self.constant
    """,
    "a constant from a stream that it seeds and puts back": """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.net = MLP(dims, (8,), dims, 0.1)
            constants = [torch.rand(dims)]
        self.shift = lambda: constants[0]
    """,
    "a parameter from a generator that is not saved": """
        generator = torch.Generator().manual_seed(7)
        self.net = MLP(dims, (8,), dims, 0.1)
        constant = nn.Parameter(torch.empty(dims, device="cpu"))
        nn.init.normal_(constant, generator=generator)
        self.shift = lambda: constant
    """,
    "a look at the values that it draws": """
        self.net = MLP(dims, (8,), dims, 0.1)
        spread = [float(p.detach().std()) for p in self.net.parameters() if p.ndim == 2]
        if min(spread) <= 0:
            raise RuntimeError("nothing was drawn")
        self.shift = lambda: 0.0
    """,
}


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    with Probe.installed(tmp_path / "site", monkeypatch) as probe:
        yield probe


def described(flow: Flow) -> dict[str, Any]:
    """Everything that a flow holds: values, types, layout in memory, what learns."""
    tensors = [*flow.state_dict(keep_vars=True).items(), *flow.named_buffers()]
    return {name: (t.detach().double().tolist(), t.dtype, t.stride(), t.requires_grad) for name, t in tensors}


@pytest.mark.parametrize("name", OURS)
def test_a_loaded_model_is_the_one_that_was_drawn_first(name: str, tmp_path: Path) -> None:
    architecture, _, config = resolve(name, {})
    torch.manual_seed(1)
    saved = create(name)
    images = torch.randint(0, 256, (32, *saved.image_shape), dtype=torch.uint8)
    saved.initialize(images)
    saved.eval()
    save_weights(saved, tmp_path / "w.safetensors", {})
    drawn = build_flow(architecture.name, config).eval()
    left_out = build_to_load(architecture.name, config).eval()
    for flow in (drawn, left_out):
        load_weights(flow, tmp_path / "w.safetensors")
    assert described(drawn) == described(left_out)
    noise = saved.draw_noise(32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(saved.log_prob(images, noise=noise), left_out.log_prob(images, noise=noise))


@pytest.mark.parametrize("name", OURS)
def test_next_to_nothing_is_drawn_and_the_random_state_stays(name: str) -> None:
    architecture, _, config = resolve(name, {})
    before = torch.get_rng_state()
    flow = build_to_load(architecture.name, config)
    assert torch.equal(before, torch.get_rng_state())
    drawn = sum(int(p.count_nonzero()) for p in flow.parameters() if p.ndim == 4)
    assert drawn == 0
    assert sum(int(p.count_nonzero()) for p in create(name).parameters()) > 0


@pytest.mark.parametrize("kind", ODD)
def test_a_model_with_constants_of_its_own_loads(kind: str, probe: Probe, tmp_path: Path) -> None:
    (probe.package / "model.py").write_text(ODD_MODEL.format(body=ODD[kind].strip()))
    flow = trained()
    write_directory(tmp_path / "mine", flow)
    loaded = load(f"path:{tmp_path / 'mine'}")
    images = torch.randint(0, 256, (4, *flow.image_shape), dtype=torch.uint8)
    noise = flow.draw_noise(4)
    with torch.no_grad():
        assert torch.equal(flow.log_prob(images, noise=noise), loaded.log_prob(images, noise=noise))


def test_only_unseeded_parameters_are_left_out() -> None:
    state = torch.get_rng_state()
    with undrawn():
        left_out = nn.Linear(4, 4).weight
        plain = torch.empty(16).normal_()
        named = nn.init.normal_(nn.Parameter(torch.empty(16)), generator=torch.Generator().manual_seed(1))
        torch.manual_seed(3)
        seeded = nn.Linear(4, 4).weight
    assert left_out.count_nonzero() == 0
    assert min(int(t.count_nonzero()) for t in (plain, named, seeded)) == 16
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(3)
    assert torch.equal(seeded, nn.Linear(4, 4).weight)


def test_shapes_alone_need_neither_a_draw_nor_the_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from flowzoo.factory import create\n"
        "state = torch.get_rng_state()\n"
        f"for name in {OURS}:\n"
        "    assert all(t.is_meta for t in create(name, device='meta').state_dict().values())\n"
        "assert torch.equal(state, torch.get_rng_state())\n"
        "print('torch._dynamo' in sys.modules or 'sympy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
