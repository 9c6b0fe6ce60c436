from __future__ import annotations

import pytest
import torch

import flowzoo
from flowzoo.bijectors import Whitening
from flowzoo.errors import ConfigError
from flowzoo.testing import conformance_suite, random_images, randomize

test_conformance = conformance_suite("nice")


def test_parameter_count_is_that_of_the_papers_mnist_model() -> None:
    flow = flowzoo.create("nice-mnist", device="meta")
    per_coupling = 392 * 1000 + 1000 + 4 * (1000**2 + 1000) + 1000 * 392 + 392
    assert sum(p.numel() for p in flow.parameters()) == 4 * per_coupling + 784
    assert abs(4 * per_coupling + 784 - 19_200_000) < 0.01 * 19_200_000


@pytest.mark.parametrize(
    "overrides",
    [
        {"base": "normal"},
        {"input_range": "symmetric", "whitening": "zca"},
        {"hidden_layers": (1, 2, 3), "couplings": 3, "init_range": 0.0},
        {"image_shape": (1, 3, 3)},
        {"marginals": "histogram", "n_bits": 2},
    ],
    ids=str,
)
def test_every_variant_inverts_and_its_log_det_is_the_jacobians(overrides: dict[str, object]) -> None:
    torch.manual_seed(0)
    config: dict[str, object] = {"image_shape": (1, 4, 4), "hidden_layers": 1, "hidden_units": 8} | overrides
    flow = flowzoo.create("nice", **config).double()
    flow.initialize(random_images(flow, 200, seed=0))
    randomize(flow.eval(), seed=1)
    y = torch.rand(1, *flow.image_shape, dtype=torch.float64)
    z, log_det = flow.bijector(y)
    back, _ = flow.bijector.inverse(z)
    assert (back - y).abs().max() < 1e-9
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.bijector(v)[0], y)
    assert abs(torch.linalg.slogdet(jacobian.reshape(flow.dims, -1)).logabsdet - log_det[0]) < 1e-8


def test_an_untrained_coupling_with_zero_init_is_the_identity() -> None:
    flow = flowzoo.create("nice", image_shape=(1, 4, 4), init_range=0.0, hidden_layers=2, hidden_units=8)
    y = torch.rand(3, 1, 4, 4)
    z, log_det = flow.bijector(y)
    assert torch.equal(z, y.flatten(1))
    assert torch.equal(log_det, torch.zeros(3))


def test_histograms_are_refused_beside_whitening() -> None:
    with pytest.raises(ConfigError, match="leave out whitening"):
        flowzoo.create("nice", image_shape=(1, 2, 2), marginals="histogram", whitening="zca")


def test_whitening_makes_the_init_batch_white() -> None:
    flow = flowzoo.create(
        "nice", image_shape=(1, 4, 4), whitening="zca", whitening_eps=1e-9, hidden_layers=1, hidden_units=4
    ).double()
    x = random_images(flow, 500, seed=0)
    noise = torch.rand(500, 1, 4, 4, dtype=torch.float64)
    flow.initialize(x, noise=noise)
    whitening = next(m for m in flow.modules() if isinstance(m, Whitening))
    white, _ = whitening(((x + noise) / 256).flatten(1))
    assert torch.allclose(torch.cov(white.t(), correction=0), torch.eye(16, dtype=torch.float64), atol=1e-4)


def test_a_hidden_layer_list_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(flowzoo.errors.ConfigError, match="hidden_layers lists 2 couplings; expected 4"):
        flowzoo.create("nice", image_shape=(1, 4, 4), hidden_layers=(1, 2))
