"""Masked autoregressive flows: masks, parameter counts, the fast inverse, mixtures, and inverse flows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flowzoo_maf.bijectors import AffineAutoregressive, MixtureAutoregressive
from torch.distributions import Categorical, MixtureSameFamily, Normal

import flowzoo
from flowzoo.bijectors import Autoregressive, residuals
from flowzoo.errors import ConfigError
from flowzoo.nets.made import MADE
from flowzoo.testing import Subject, checks_kind, conformance_suite, randomize

test_conformance = conformance_suite("maf")


def random_made(dims: int, hidden: tuple[int, ...], parameters: int, seed: int = 0, direct: int = 0) -> MADE:
    torch.manual_seed(seed)
    made = MADE(torch.randperm(dims) + 1, hidden, parameters, "tanh", direct=direct).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return made


def test_parameter_counts_are_those_of_the_papers_models() -> None:
    def count(name: str) -> int:
        return sum(p.numel() for p in flowzoo.create(name, device="meta").parameters())

    d, h = 784, 1024
    made = d * h + h + h * h + h + 2 * (h * d + d)
    assert count("maf-made-mnist") == made == 3_460_640
    assert count("maf-paper-mnist") == 5 * (made + 2 * d) == 17_311_040
    mog = d * h + h + h * h + h + 30 * (h * d + d)
    assert count("maf-paper-mog-mnist") == 5 * (made + 2 * d) + mog
    for name in ("maf-mnist", "maf-mog-mnist"):
        assert 2 * count(name) < 6e6  # bytes in half precision


LAYERS: dict[str, Any] = {
    "affine": lambda sampler: AffineAutoregressive(random_made(6, (11, 7), 2), sampler, clip=2.0).double(),
    "direct": lambda sampler: AffineAutoregressive(random_made(6, (4,), 2, direct=3), sampler, 2.0).double(),
    "mixture": lambda sampler: MixtureAutoregressive(random_made(6, (11,), 9), sampler).double(),
}


@pytest.mark.parametrize("sampler", ["sequential", "jacobi"])
@pytest.mark.parametrize("kind", LAYERS)
def test_all_ways_to_the_inverse_agree(kind: str, sampler: str) -> None:
    layer: Autoregressive = LAYERS[kind](sampler)
    z = torch.randn(5, 6, dtype=torch.float64)
    recorded, log_det = layer.inverse(z)
    with torch.no_grad():
        quick, quick_log_det = layer.inverse(z)
    torch.testing.assert_close(quick, recorded, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(quick_log_det, log_det, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(layer(quick)[0], z, atol=1e-7, rtol=1e-7)


def test_samples_stay_finite_where_networks_see_bounded_values() -> None:
    made = random_made(300, (20,), 2, direct=8)
    layer, z = AffineAutoregressive(made), torch.randn(50, 300, dtype=torch.float64)
    with torch.no_grad():
        assert not layer.inverse(z)[0].isfinite().all()
        made.input_bound = 3.0
        x, _ = layer.inverse(z)
        assert x.isfinite().all()
        torch.testing.assert_close(layer(x)[0], z)


def test_direct_connections_reach_as_far_back_as_they_are_to() -> None:
    made = random_made(7, (2,), 2, direct=3)
    with torch.no_grad():
        made.out.weight.zero_()
    order = made.order
    jacobian = torch.autograd.functional.jacobian(lambda x: made(x[None])[0].sum(1), torch.randn(7).double())
    places = jacobian[order][:, order] != 0
    back = torch.arange(7)[:, None] - torch.arange(7)
    assert torch.equal(places, (back >= 1) & (back <= 3))


def test_jacobi_says_its_residual_and_needs_at_most_d_sweeps() -> None:
    layer, calls = LAYERS["affine"]("jacobi"), []
    layer.made.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad(), residuals() as found:
        layer.inverse(torch.randn(5, 6, dtype=torch.float64))
    assert found.count == 1
    assert found.largest <= 1e-12
    assert len(calls) <= 6 + 2
    assert layer.map_kind.inverse == "numeric"
    assert LAYERS["affine"]("sequential").map_kind.inverse == "sequential"
    assert LAYERS["affine"]("sequential").inverse_passes == 6


def test_gradients_of_samples() -> None:
    layer = LAYERS["affine"]("sequential")
    z = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: layer.inverse(z)[0], (z,))


def test_mixture_conditionals_are_torchs() -> None:
    layer = LAYERS["mixture"]("sequential")
    x = torch.randn(8, 6, dtype=torch.float64)
    z, log_det = layer(x)
    logits, means, log_scales = layer.made(x).chunk(3, dim=-1)
    conditional = MixtureSameFamily(
        Categorical(logits=logits), Normal(means + layer.spread, log_scales.exp())
    )
    torch.testing.assert_close(Normal(0.0, 1.0).log_prob(z).sum(1) + log_det, conditional.log_prob(x).sum(1))


def test_an_inverse_flow_exchanges_the_directions() -> None:
    config: dict[str, Any] = {"dims": 3, "layers": 2, "hidden": (8,), "normalization": "none"}
    plain = randomize(flowzoo.create("maf", **config).double().eval(), 1)
    inverse = flowzoo.create("maf", **config, inverse=True).double().eval()
    state = {k.replace("made.", "bijector.made."): v for k, v in plain.state_dict().items()}
    inverse.load_state_dict(state)
    assert (plain.density_passes, plain.sampling_passes) == (1, 3)
    assert (inverse.density_passes, inverse.sampling_passes) == (3, 1)
    layers = [m for m in plain.bijector.modules() if isinstance(m, Autoregressive)]
    z = torch.randn(4, 3, dtype=torch.float64)
    x = inverse.bijector.inverse(z)[0]
    for layer in reversed(layers):
        z = layer(z)[0]
    torch.testing.assert_close(x, z)


def test_orders_alternate_and_a_random_one_is_in_the_config() -> None:
    def orders(**config: Any) -> list[list[int]]:
        flow = flowzoo.create("maf", dims=5, layers=3, hidden=(8,), **config)
        return [m.made.degrees.tolist() for m in flow.bijector.modules() if isinstance(m, Autoregressive)]

    first, second, third = orders()
    assert first == [1, 2, 3, 4, 5] == second[::-1] == third
    random = orders(order="random", order_seed=3)
    torch.manual_seed(99)
    assert random == orders(order="random", order_seed=3) != orders(order="random", order_seed=4)
    assert [6 - d for d in random[0]] == random[1]


def test_batch_statistics_are_frozen_in_eval_mode() -> None:
    flow = flowzoo.create("maf-moons", normalization="batch").double()
    x = torch.randn(64, 2, dtype=torch.float64) * 3 + 1
    flow.initialize(x)
    flow.train()
    for _ in range(5):
        flow.log_prob(x)
    flow.eval()
    together = flow.log_prob(x)
    torch.testing.assert_close(torch.cat([flow.log_prob(part) for part in x.split(1)]), together)


VARIANTS: list[dict[str, Any]] = [
    {"dims": 2, "layers": 2, "hidden": (8,), "mixture": 3, "base": "uniform"},
    {"dims": 2, "layers": 2, "hidden": (8,), "mixture": 3, "mixture_layers": 1},
    {"dims": 2, "layers": 2, "hidden": (8,), "inverse": True, "normalization": "actnorm"},
    {"dims": 2, "layers": 2, "hidden": (8,), "sampler": "jacobi", "log_scale_clip": 2.0},
    {"dims": 2, "layers": 2, "hidden": (8,), "direct": 1, "input_bound": 0.5},
    {"image_shape": (1, 2, 2), "layers": 2, "hidden": (8,), "mixture": 2, "alpha": 0.05},
    {"image_shape": (1, 2, 2), "layers": 2, "hidden": (2,), "direct": 2, "alpha": 0.05},
    {"image_shape": (1, 2, 2), "layers": 2, "hidden": (2,), "base": "logistic", "marginals": "histogram"},
]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_variant_is_what_it_says(config: dict[str, Any]) -> None:
    subject = Subject.variant("maf", **config)
    assert checks_kind.kind_is_said(subject)
    assert checks_kind.log_det_is_jacobian(subject)
    assert checks_kind.density_integrates(subject)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hidden": ()}, "hidden layer"),
        ({"mixture": 2, "inverse": True}, "normal conditionals"),
        ({"base": "uniform"}, "unit cube"),
        ({"mixture": 2, "mixture_layers": 9}, "at most 5"),
        ({"alpha": 0.7}, "alpha"),
        ({"direct": 2}, "direct"),
        ({"input_bound": -1.0}, "input_bound"),
        ({"mixture": 2, "base": "logistic"}, "not to a logistic one"),
        ({"marginals": "histogram"}, "vectors have none"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        flowzoo.create("maf", dims=2, **config)
