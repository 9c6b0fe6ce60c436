"""The conformance kit passes random third-party architectures and catches each kind of broken one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from flowzoo.testing import CHECKS, NotAsked, Subject, run_checks, run_conformance
from tests.plugin_factory import good

STACK = """
    import math
    import random

    import torch
    from torch import nn

    from flowzoo.bijectors import (
        ActNorm, AdditiveCoupling, AffineCoupling, AlternateColumns, Chain, ChannelHalves, Checkerboard, FixedAffine,
        Flatten, InvertibleConv1x1, InvertibleConv1x1LU, Logit, MaskedCheckerboard, MixtureLogisticCoupling,
        Permutation, ScaleMap, Squeeze,
    )
    from flowzoo.flow import Flow
    from flowzoo.nets.conv import conv_net

    def partition(dice, x):
        return dice.choice([Checkerboard, AlternateColumns, MaskedCheckerboard])(dice.random() < 0.5)

    def coupling(dice, channels, spatial):
        part = partition(dice, channels) if spatial else ChannelHalves(dice.random() < 0.5)
        half = channels if spatial else channels // 2
        kind = dice.choice(["additive", "affine", "mixture"])
        outputs = {"additive": 1, "affine": 2, "mixture": 8}[kind] * half
        net = conv_net(half, outputs, 6, edge_bias=dice.random() < 0.5)
        if kind == "additive":
            return AdditiveCoupling(part, net)
        if kind == "mixture":
            return MixtureLogisticCoupling(part, net, half, 2)
        name = dice.choice(["tanh", "soft-tanh", "sigmoid2", "clamp2"])
        return AffineCoupling(part, net, ScaleMap(name, half), dice.choice(["shift-scale", "scale-shift"]))

    def mixing(dice, channels):
        return dice.choice([
            lambda: InvertibleConv1x1(channels), lambda: InvertibleConv1x1LU(channels),
            lambda: InvertibleConv1x1(channels, ActNorm((channels,))), lambda: Permutation.reversal(channels),
            lambda: Permutation.random(channels, dice.randrange(100)), lambda: ActNorm((channels,), 3.0),
        ])()

    def build(config):
        dice = random.Random(SEED)
        channels, height, width = config.image_shape
        stack = [dice.choice([FixedAffine(shift=-0.5), Logit(0.05)]), coupling(dice, channels, True)]
        stack.append(Squeeze(dice.choice(["channel", "offset", "checkerboard"])))
        channels, height, width = 4 * channels, height // 2, width // 2
        for _ in range(dice.randrange(1, 4)):
            stack += [mixing(dice, channels), coupling(dice, channels, False)]
        stack.append(Flatten((channels, height, width)))
        return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=Chain(*stack))
"""


@pytest.mark.parametrize("seed", range(4))
def test_random_third_party_architectures_pass(install: Callable[..., None], seed: int) -> None:
    distribution = good(f"random{seed}")
    distribution.files["model.py"] = STACK.replace("SEED", str(seed))
    install(distribution)
    results = list(run_conformance(f"random{seed}"))
    assert len(results) >= 15
    assert [r for r in results if not r.passed] == []


GOOD_END = "return Flow("
BROKEN = {
    "log_det is the Jacobian's": """
    from flowzoo.bijectors import Bijector
    class Wrong(Bijector):
        def _forward(self, x, context):
            return 2 * x, x.new_zeros(x.shape[0])
        def _inverse(self, z, context):
            return z / 2, z.new_zeros(z.shape[0])
    """,
    "inverse, float64": """
    from flowzoo.bijectors import Bijector
    class Wrong(Bijector):
        def _forward(self, x, context):
            return x + 1e-6, x.new_zeros(x.shape[0])
        def _inverse(self, z, context):
            return z, z.new_zeros(z.shape[0])
    """,
    "batch equals items": """
    from flowzoo.bijectors import Bijector
    class Wrong(Bijector):
        def _forward(self, x, context):
            shift = x.mean(0, keepdim=True).detach()
            return x - shift, x.new_zeros(x.shape[0])
        def _inverse(self, z, context):
            return z, z.new_zeros(z.shape[0])
    """,
    "gradient reaches all": """
    import torch
    from flowzoo.bijectors import Bijector
    class Wrong(Bijector):
        def __init__(self):
            super().__init__()
            self.idle = torch.nn.Parameter(torch.zeros(3))
        def _forward(self, x, context):
            return x, x.new_zeros(x.shape[0])
        def _inverse(self, z, context):
            return z, z.new_zeros(z.shape[0])
    """,
    "save and load": """
    import torch
    from flowzoo.bijectors import Bijector
    class Wrong(Bijector):
        def __init__(self):
            super().__init__()
            self.hidden = torch.rand(1).item()
        def _forward(self, x, context):
            return x + self.hidden, x.new_zeros(x.shape[0])
        def _inverse(self, z, context):
            return z - self.hidden, z.new_zeros(z.shape[0])
    """,
    "initialisation once": """
    import torch
    from flowzoo.bijectors import ActNorm
    class Wrong(ActNorm):
        def __init__(self):
            super().__init__((64,))
        def wants_init(self):
            return self.initializing
        def initialize_from(self, x):
            super().initialize_from(x)
            self.initialized.fill_(False)
    """,
}


@pytest.mark.parametrize("check", BROKEN)
def test_each_kind_of_mistake_is_caught_by_its_check(install: Callable[..., None], check: str) -> None:
    name = "broken" + str(list(BROKEN).index(check))
    distribution = good(name)
    model = distribution.files["model.py"]
    model = model.replace("    def build(config):", BROKEN[check] + "\n    def build(config):")
    distribution.files["model.py"] = model.replace(
        "Chain(Flatten(config.image_shape),", "Chain(Flatten(config.image_shape), Wrong(),"
    )
    install(distribution)
    results = {r.check: r for r in run_conformance(name)}
    assert not results[check].passed
    assert results["metadata imports no torch"].passed


def test_metadata_that_imports_torch_is_caught(install: Callable[..., None]) -> None:
    distribution = good("heavy")
    distribution.files["config.py"] = "import torch\n" + distribution.files["config.py"].replace(
        "\n    ", "\n"
    )
    install(distribution)
    results = {r.check: r for r in run_conformance("heavy")}
    assert not results["metadata imports no torch"].passed


@pytest.mark.parametrize("engine", [True, False])
def test_checks_run_with_the_engine_on_or_off(engine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def where(subject: Subject) -> str:
        flow = subject.build(seed=1)
        return flow.engine.explain(flow.bijector, torch.zeros(1, *flow.data_shape, dtype=torch.float64), None)

    monkeypatch.setitem(CHECKS, "where", where)
    (result,) = run_checks(Subject("nice"), ["where"], engine=engine)
    assert result.passed
    assert ("the engine is switched off" in result.detail) != engine


def test_a_check_that_does_not_concern_an_architecture_says_so() -> None:
    images, points = Subject("cdf"), Subject.variant("cdf", dims=1, elementwise="normals", base="normal")
    names = ["density integrates", "dequantization density", "estimates are keyed"]
    not_asked = [
        [isinstance(result.detail, NotAsked) for result in run_checks(subject, names)]
        for subject in (images, points)
    ]
    assert not_asked == [[True, False, True], [False, True, True]]
