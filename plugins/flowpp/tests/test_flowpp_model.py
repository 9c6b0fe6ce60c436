"""Flow++ models: parameter counts, exactness of the map, dequantization, initialization."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flowzoo_flowpp.config import FlowppConfig
from flowzoo_flowpp.model import OnHalves, build
from flowzoo_flowpp.plugin import ARCHITECTURE

from flowzoo.bijectors import ActNorm, AlternateColumns, InvertibleConv1x1
from flowzoo.config import parse_config
from flowzoo.flow import Flow
from flowzoo.nets.attention import GatedAttention
from flowzoo.nets.gated import ChannelLayerNorm, GatedConv, ScaledConv2d

SMALL: dict[str, dict[str, Any]] = {
    "tiny": {},
    "uniform": {"dequantization": "uniform"},
    "weight-norm": {"weight_norm": True, "permutation": "none", "context_heads": 2},
    "no-attention": {"heads": 0, "dequantization_heads": 0, "output_activation": False},
    "conv, multi-scale, conditional prior": {
        "network": "conv",
        "groups": ("squeeze", "channel:2", "factor", "squeeze", "channel:2"),
        "normalization": "channel",
        "permutation": "full",
        "prior": "conditional",
        "dequantization_groups": ("squeeze", "channel:2"),
    },
    "joined halves, the second conditioning first": {
        "groups": ("checkerboard:2", "squeeze", "factor", "channel:1"),
        "normalization": "channel",
        "permutation": "joined",
        "squeeze_order": "channel",
        "first_conditioner": "second",
        "affine_order": "shift-scale",
        "learned_bound": True,
        "dequantization_groups": ("checkerboard:2",),
        "dequantization_components": 3,
        "context_residual": False,
    },
    "joined halves, normalized by pixel": {"permutation": "joined"},
    "factor last, plain prior": {
        "groups": ("squeeze", "columns:1", "factor"),
        "permutation": "full",
        "dequantization_groups": ("checkerboard:1", "columns:1"),
    },
}


def make(preset: str = "tiny", **change: Any) -> Flow:
    torch.manual_seed(0)
    return build(parse_config(FlowppConfig, {**ARCHITECTURE.presets[preset].config, **change}, preset))


def randomize(flow: Flow) -> Flow:
    """Moves every parameter off its initial value: near the identity a wrong sign would not show.

    Much more noise makes maps whose Jacobians float64 cannot take the determinant of.
    """
    generator = torch.Generator().manual_seed(1)
    flow = flow.double().eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.07 * noise)
    return flow


def images(n: int, *, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    "name", [name for name, preset in ARCHITECTURE.presets.items() if preset.parameters is not None]
)
def test_parameters_equal_the_published_count(name: str) -> None:
    with torch.device("meta"):
        flow = make(name)
    assert sum(p.numel() for p in flow.parameters()) == ARCHITECTURE.presets[name].parameters


def test_tiny_is_tiny_and_has_every_part() -> None:
    flow = make("tiny")
    assert sum(p.numel() for p in flow.parameters()) <= 50_000
    assert flow.is_lower_bound
    kinds = {type(module).__name__ for module in flow.modules()}
    assert {"GatedConv", "GatedAttention", "ChannelLayerNorm", "MixtureLogisticCoupling"} <= kinds


@pytest.mark.parametrize("change", SMALL.values(), ids=SMALL.keys())
def test_log_det_is_the_jacobians_and_the_inverse_inverts(change: dict[str, Any]) -> None:
    flow = randomize(make(**change))
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    z, log_det = flow.bijector(x)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow.bijector(v)[0], x[i : i + 1])
        expected = torch.linalg.slogdet(jacobian.reshape(64, 64)).logabsdet
        torch.testing.assert_close(log_det[i], expected, atol=1e-8, rtol=0)
    with torch.no_grad():
        back, inverse_log_det = flow.bijector.inverse(z)
    torch.testing.assert_close(back, x, atol=1e-9, rtol=0)
    torch.testing.assert_close(inverse_log_det, -log_det, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    "change", [SMALL["tiny"], SMALL["conv, multi-scale, conditional prior"]], ids=["gated", "conv"]
)
def test_the_dequantizers_density_is_its_jacobians(change: dict[str, Any]) -> None:
    flow = randomize(make(**change))
    levels = images(1).double()
    noise = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    u, log_q = flow.dequantization(levels, noise)
    assert bool(((u > 0) & (u < 1)).all())
    jacobian = torch.autograd.functional.jacobian(lambda e: flow.dequantization(levels, e)[0], noise)
    log_det = torch.linalg.slogdet(jacobian.reshape(64, 64)).logabsdet
    log_normal = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum()
    torch.testing.assert_close(log_q[0], log_normal - log_det, atol=1e-8, rtol=0)


@pytest.mark.parametrize("change", SMALL.values(), ids=SMALL.keys())
def test_gradients_reach_every_parameter(change: dict[str, Any]) -> None:
    flow = make(**{**change, "dropout": 0.0})
    flow.initialize(images(32), generator=torch.Generator().manual_seed(0))
    flow.log_prob(images(8), generator=torch.Generator().manual_seed(4)).mean().backward()
    silent = [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_initialization_makes_the_latent_standard_and_happens_once() -> None:
    flow = make(dropout=0.0)
    x = images(64)
    assert flow.initialize(x, generator=torch.Generator().manual_seed(0))
    assert flow.is_initialized
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    assert not flow.initialize(255 - x)
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())
    with torch.no_grad():
        z = flow.encode(x)
    assert abs(float(z.mean())) < 0.3
    assert 0.5 < float(z.std()) < 2


def test_networks_begin_small_so_that_training_begins_sane() -> None:
    flow = make("tiny")
    x = images(64)
    flow.initialize(x, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bits = flow.eval().bits_per_dim(x, generator=torch.Generator().manual_seed(1))
    # Uniform noise costs 8 bits; a fresh model must not be far above that.
    assert float(bits.mean()) < 9.5


def test_dropout_is_off_in_eval() -> None:
    flow = make("tiny", dropout=0.5)
    x, noise = images(4), torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    flow.train()
    assert not torch.equal(flow.log_prob(x, noise=noise), flow.log_prob(x, noise=noise))
    flow.eval()
    assert torch.equal(flow.log_prob(x, noise=noise), flow.log_prob(x, noise=noise))


def test_importance_samples_tighten_the_bound() -> None:
    flow = make("tiny").eval()
    x = images(16)
    with torch.no_grad():
        one = flow.bits_per_dim(x, generator=torch.Generator().manual_seed(0)).mean()
        many = flow.bits_per_dim(x, samples=16, generator=torch.Generator().manual_seed(0)).mean()
    assert many < one


def test_on_halves_acts_on_each_half_alone() -> None:
    partition = AlternateColumns(swap=True)
    layer = OnHalves(partition, InvertibleConv1x1(3), ActNorm((3,))).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, log_det = layer(x)
    a, b = partition.split(x)
    za, zb = partition.split(z)
    torch.testing.assert_close(za, layer.first(a)[0])
    torch.testing.assert_close(zb, b)
    torch.testing.assert_close(layer.inverse(z)[0], x)
    torch.testing.assert_close(layer.inverse(z)[1], -log_det)


def test_five_bit_images_round_trip() -> None:
    flow = make("tiny", n_bits=5)
    x = images(4)
    flow.initialize(x, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flow.eval().reconstruct(x), x // 8 * 8)


@pytest.mark.parametrize("change", SMALL.values(), ids=SMALL.keys())
def test_half_precision_networks_leave_the_likelihood_in_float32(change: dict[str, Any]) -> None:
    flow = make(**change).eval()
    x = images(8)
    flow.initialize(x, generator=torch.Generator().manual_seed(0))
    noise = flow.draw_noise(8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = flow.log_prob(x, noise=noise)
        flow.set_network_dtype(torch.bfloat16)
        rounded = flow.log_prob(x, noise=noise)
    assert rounded.dtype == torch.float32
    # A twentieth of a nat in 64 dimensions is a thousandth of a bit per dimension.
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0)


def test_every_block_sees_channels_last_memory() -> None:
    flow = make("tiny").eval()
    x = images(4)
    flow.initialize(x, generator=torch.Generator().manual_seed(0))
    other: list[str] = []

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        if not inputs[0].is_contiguous(memory_format=torch.channels_last):
            other.append(type(module).__name__)

    for module in flow.modules():
        if isinstance(module, ScaledConv2d | GatedConv | GatedAttention | ChannelLayerNorm):
            module.register_forward_hook(note)
    flow.log_prob(x)
    assert other == []
