"""RealNVP: parameter counts, the log-determinant, the inverse, and independence of a batch's items."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flowzoo_realnvp.config import RealNVPConfig
from flowzoo_realnvp.model import build
from flowzoo_realnvp.networks import conv_network
from flowzoo_realnvp.plugin import ARCHITECTURE
from torch import nn

from flowzoo.bijectors import FactorOut
from flowzoo.config import config_to_dict, parse_config
from flowzoo.errors import ConfigError, InputError
from flowzoo.flow import Flow
from flowzoo.testing import conformance_suite

test_conformance = conformance_suite("realnvp")

TINY = dict(ARCHITECTURE.presets["tiny"].config)
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "bottleneck": {"bottleneck": True, "affine_order": "scale-shift", "feature_growth": 1},
    "packed convolutions": {"checkerboard": "packed", "network": "conv", "scale_map": "clamp2"},
    "no batch norm": {"network_batch_norm": False, "normalization": "none", "scale_map": "soft-tanh"},
    "actnorm": {"normalization": "actnorm", "factor_squeeze": "channel", "initial_squeezes": 1},
    "one scale": {"scales": 1, "squeeze": "offset"},
    "three scales": {"scales": 3, "channel_couplings": 2},
    "variational": {"dequantization": "variational", "network": "conv"},
    "second half first": {"first_conditioner": "second", "network_scales": True, "normalization": "none"},
    "one channel": {"image_shape": (1, 8, 8), "n_bits": 5},
}


def config(**overrides: Any) -> RealNVPConfig:
    return parse_config(RealNVPConfig, {**TINY, **overrides}, "test")


def randomized(seed: int = 0, **overrides: Any) -> Flow:
    """A model in eval mode with random parameters and random running statistics, in float64."""
    generator = torch.Generator().manual_seed(seed)
    flow = build(config(**overrides)).double().eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        for name, buffer in flow.named_buffers():
            noise = torch.randn(buffer.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * noise)
            elif name.endswith("running_var"):
                buffer.copy_(torch.exp(0.3 * noise))
    return flow


def images(flow: Flow, n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *flow.image_shape), generator=generator, dtype=torch.uint8)


def unit_interval(flow: Flow, n: int) -> torch.Tensor:
    return (images(flow, n).double() + 0.5) / 256


@pytest.mark.parametrize("name", ["cifar10", "imagenet32"])
def test_parameter_count_is_the_published_one(name: str) -> None:
    preset = ARCHITECTURE.presets[name]
    with torch.device("meta"):
        flow = build(parse_config(RealNVPConfig, preset.config, name))
    count = sum(parameter.numel() for parameter in flow.parameters())
    assert preset.parameters is not None
    assert abs(count - preset.parameters) < 0.01 * preset.parameters
    assert f"{count:,}" in preset.parameters_note


def test_width_doubling_gives_the_count_that_the_note_says() -> None:
    preset = ARCHITECTURE.presets["cifar10"]
    with torch.device("meta"):
        flow = build(parse_config(RealNVPConfig, {**preset.config, "feature_growth": 2}, "cifar10"))
    assert f"{sum(parameter.numel() for parameter in flow.parameters()):,}" in preset.parameters_note


@pytest.mark.parametrize("name", ARCHITECTURE.presets)
def test_every_preset_builds_on_meta(name: str) -> None:
    with torch.device("meta"):
        flow = build(parse_config(RealNVPConfig, ARCHITECTURE.presets[name].config, name))
    assert all(parameter.is_meta for parameter in flow.parameters())
    if name == "tiny":
        assert sum(parameter.numel() for parameter in flow.parameters()) <= 50_000


@pytest.mark.parametrize("variant", VARIANTS)
def test_log_det_is_that_of_the_jacobian(variant: str) -> None:
    flow = randomized(**VARIANTS[variant])
    y = unit_interval(flow, 1)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.bijector(v)[0], y, vectorize=True)
    expected = torch.linalg.slogdet(jacobian.reshape(flow.dims, flow.dims)).logabsdet
    _, log_det = flow.bijector(y)
    torch.testing.assert_close(log_det[0], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_inverse_undoes_forward(variant: str) -> None:
    flow = randomized(**VARIANTS[variant])
    y = unit_interval(flow, 4)
    z, log_det = flow.bijector(y)
    back, inverse_log_det = flow.bijector.inverse(z)
    assert (back - y).abs().max() <= 1e-9
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-8)
    x = images(flow, 4)
    drop = 8 - flow.n_bits
    assert torch.equal(flow.reconstruct(x), x >> drop << drop)


def test_inverse_in_float32() -> None:
    flow = randomized().float()
    y = unit_interval(flow, 4).float()
    z, _ = flow.bijector(y)
    assert (flow.bijector.inverse(z)[0] - y).abs().max() <= 1e-4


@pytest.mark.parametrize("variant", ["paper", "three scales"])
def test_every_pixel_reaches_the_latent_once(variant: str) -> None:
    flow = randomized(**VARIANTS[variant])
    z = flow.encode(images(flow, 2))
    assert z.shape == (2, flow.dims)
    factored = sum(isinstance(module, FactorOut) for module in flow.modules())
    assert factored == config(**VARIANTS[variant]).scales - 1
    # Each pixel of the image moves some of the latent, and no latent variable stands still under all of them.
    y = unit_interval(flow, 1)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.bijector(v)[0], y, vectorize=True)
    moves = jacobian.reshape(flow.dims, flow.dims) != 0
    assert moves.any(dim=0).all()
    assert moves.any(dim=1).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_item_does_not_depend_on_its_companions_in_eval_mode(variant: str) -> None:
    flow = randomized(**VARIANTS[variant])
    x = images(flow, 5)
    noise = flow.draw_noise(5, generator=torch.Generator().manual_seed(1))
    together = flow.log_prob(x, noise=noise)
    alone = torch.cat([flow.log_prob(x[i : i + 1], noise=noise[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


def test_running_averages_follow_the_batches_and_end_as_their_statistics() -> None:
    flow = randomized()
    x = images(flow, 16)
    noise = flow.draw_noise(16, generator=torch.Generator().manual_seed(1))
    flow.train()
    with torch.no_grad():
        for _ in range(120):
            in_training = flow.log_prob(x, noise=noise)
    torch.testing.assert_close(flow.eval().log_prob(x, noise=noise), in_training, rtol=5e-3, atol=0)


def test_the_bijector_has_no_inverse_in_training_mode_and_decoding_takes_eval_mode() -> None:
    flow = randomized().train()
    z = torch.zeros(2, flow.dims, dtype=torch.float64)
    with pytest.raises(InputError, match="eval"):
        flow.bijector.inverse(z)
    images = flow.decode(z)
    assert flow.training
    assert torch.equal(images, flow.eval().decode(z))


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_reaches_every_parameter_and_lowers_the_loss(variant: str) -> None:
    torch.manual_seed(0)
    flow = build(config(**VARIANTS[variant])).train()
    x = images(flow, 16)
    flow.initialize(x, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = flow.nats_to_bits(flow(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in flow.parameters())
    assert losses[-1] < losses[0]


def test_networks_alone_run_in_bfloat16() -> None:
    flow = build(config()).eval()
    x = images(flow, 2)
    exact = flow.log_prob(x, noise=torch.full((2, *flow.image_shape), 0.5))
    flow.set_network_dtype(torch.bfloat16)
    assert (
        flow.log_prob(x, noise=torch.full((2, *flow.image_shape), 0.5)).dtype == exact.dtype == torch.float32
    )


def test_config_survives_a_round_trip() -> None:
    before = config(**VARIANTS["variational"])
    assert parse_config(RealNVPConfig, config_to_dict(before), "test") == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"scales": 5}, "squeezed 4 times"),
        ({"scales": 4, "checkerboard": "packed"}, "even widths"),
        ({"logit_alpha": 0.5}, "logit_alpha"),
        ({"features": 0}, "features"),
        ({"image_shape": (1, 7, 7), "scales": 1, "dequantization": "variational"}, "2x2 blocks"),
        ({"n_bits": 9}, "n_bits"),
        ({"masks": 3}, "unknown key"),
    ],
)
def test_impossible_configs_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**overrides)


def test_a_network_without_batch_norm_has_the_names_and_values_of_a_sequence() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    net = conv_network(3, 4, 8, batch_norm=False).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    sequence = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)
    ).double()
    sequence.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(x), sequence(x))
