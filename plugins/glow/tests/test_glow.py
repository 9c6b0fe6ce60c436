from __future__ import annotations

from typing import Any

import pytest
import torch
from flowzoo_glow.plugin import ARCHITECTURE

import flowzoo
from flowzoo.bijectors import AffineCoupling
from flowzoo.data import get_dataset
from flowzoo.evaluation.noise import keyed_noise
from flowzoo.evaluation.sampling import count_finite
from flowzoo.testing import conformance_suite, random_images, randomize

test_conformance = conformance_suite("glow")

PUBLISHED: dict[str, dict[str, object]] = {
    "cifar10": {"edge_bias": False, "net_normalization": "none"},
    "imagenet32": {"edge_bias": False, "permutation": "lu"},
    "imagenet64": {"edge_bias": False, "net_normalization": "none"},
}
"""The variant that has the tabulated number of parameters, in all digits that were published."""


def parameters(preset: str, **overrides: Any) -> int:
    return sum(p.numel() for p in flowzoo.create(f"glow-{preset}", device="meta", **overrides).parameters())


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_note_explains_the_tabulated_count_to_the_last_parameter(preset: str) -> None:
    found = ARCHITECTURE.presets[preset]
    overrides = PUBLISHED[preset]
    ours, edgeless = parameters(preset), parameters(preset, edge_bias=False)
    tabulated = parameters(preset, **overrides)
    assert found.parameters == round(tabulated, -5)
    terms = [ours, ours - edgeless, tabulated]
    if "net_normalization" in overrides:
        terms.append(edgeless - tabulated)
    assert all(f"{term:,}" in found.parameters_note for term in terms)
    assert all(f"{key}={value!r}" in found.parameters_note for key, value in overrides.items())


@pytest.mark.parametrize("preset", PUBLISHED)
def test_edge_bias_accounts_for_the_rest_of_the_count(preset: str) -> None:
    with_edge, without = (parameters(preset, edge_bias=edge) for edge in (True, False))
    config = flowzoo.create(f"glow-{preset}", device="meta").config
    channels = [12 * 2**level for level in range(config.levels)]
    couplings = sum(config.depth * 9 * (config.hidden_channels + c) for c in channels)
    priors = sum(9 * c for c in channels[:-1])
    assert with_edge - without == couplings + priors


VARIANTS = [
    {"coupling": "additive"},
    {"permutation": "lu"},
    {"permutation": "reverse"},
    {"permutation": "shuffle"},
    {"learn_prior": False, "learn_top": "none"},
    {"learn_top": "element", "squeeze_order": "offset"},
    {"actnorm": False, "net_normalization": "none"},
    {"scale_map": "tanh", "order": "scale-shift", "layout": "halves"},
    {"preprocessing": "logit", "alpha": 1e-5},
    {"dequantization": "variational", "dequantization_channels": 4},
    {"depths": (1, 3)},
    {"n_bits": 5, "edge_bias": False},
    {"transformed_half": "first", "network_input": "rectified", "net_normalization": "none"},
    {"network_input": "clamped"},
]


@pytest.mark.parametrize("overrides", VARIANTS, ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()))
def test_every_variant_inverts_and_its_log_det_is_the_jacobians(overrides: dict[str, object]) -> None:
    torch.manual_seed(0)
    flow = flowzoo.create(
        "glow", image_shape=(1, 4, 4), levels=2, depth=2, hidden_channels=4, **overrides
    ).double()
    randomize(flow.eval(), seed=1)
    y = 0.02 + 0.96 * torch.rand(1, 1, 4, 4, dtype=torch.float64)
    z, log_det = flow.bijector(y)
    back, _ = flow.bijector.inverse(z)
    assert (back - y).abs().max() < 1e-9
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.bijector(v)[0], y).reshape(16, 16)
    assert abs(torch.linalg.slogdet(jacobian).logabsdet - log_det[0]) < 1e-8
    x = random_images(flow, 4, seed=2)
    assert torch.equal(flow.reconstruct(x), x)


def test_levels_may_differ_in_depth() -> None:
    def deep(depths: tuple[int, ...]) -> int:
        return sum(
            isinstance(module, AffineCoupling)
            for module in flowzoo.create("glow-tiny", device="meta", depths=depths).modules()
        )

    assert deep((1, 5)) == 6
    assert deep(()) == deep((2, 2))


def test_initialisation_normalises_what_every_coupling_sees() -> None:
    torch.manual_seed(0)
    flow = flowzoo.create("glow-tiny").double()
    outputs: list[torch.Tensor] = []
    for module in flow.modules():
        if type(module).__name__ == "InvertibleConv1x1":
            module.register_forward_pre_hook(lambda m, args: outputs.append(m.actnorm(args[0])[0]))
    x = random_images(flow, 128, seed=0)
    noise = flow.draw_noise(128, generator=torch.Generator().manual_seed(0))
    flow.initialize(x, noise=noise)
    outputs.clear()
    flow.log_prob(x, noise=noise)
    assert len(outputs) == 4
    for h in outputs:
        var, mean = torch.var_mean(h, dim=(0, 2, 3), correction=0)
        assert mean.abs().max() < 1e-8
        assert (var - 1).abs().max() < 1e-4


@pytest.mark.parametrize(
    "config",
    [
        {"image_shape": (3, 12, 12), "levels": 3, "depth": 1},
        {"image_shape": (3, 8, 8), "levels": 0, "depth": 1},
        {"image_shape": (3, 8, 8), "levels": 1, "depth": 1, "coupling": "cubic"},
        {"image_shape": (3, 8, 8), "levels": 1, "depth": 1, "deepness": 3},
        {"image_shape": (3, 8, 8), "levels": 2, "depth": 1, "depths": (1, 2, 3)},
        {"image_shape": (3, 8, 8), "levels": 2, "depth": 1, "depths": (1, 0)},
    ],
)
def test_an_impossible_config_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(flowzoo.errors.ConfigError):
        flowzoo.create("glow", **config)


def test_networks_that_see_bounded_values_keep_samples_finite_and_cost_nothing() -> None:
    """Off the data, activations drive each other to infinity through networks that see values of any size."""
    clamped = flowzoo.load("glow-mnist")
    plain = flowzoo.create("glow-mnist", network_input="plain").eval()
    plain.load_state_dict(clamped.state_dict())
    finite = [count_finite(flow, 100, temperature=1.5).finite for flow in (clamped, plain)]
    assert finite[0] == 100 > finite[1]
    images = get_dataset("mnist").load("test").take(20)[0:20]
    noise = keyed_noise(clamped.noise_kind, clamped.image_shape, 0, range(20), 0, dtype=torch.float32)
    bits = [flow.nats_to_bits(flow.log_prob(images, noise=noise)) for flow in (clamped, plain)]
    assert torch.allclose(bits[0], bits[1], atol=1e-4)
