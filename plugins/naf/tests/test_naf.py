"""Neural autoregressive flows: the conformance kit, the sigmoidal map and its inverse, masks, passes."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

import pytest
import torch
from flowzoo_naf.bijectors import SigmoidalAutoregressive, SigmoidalCoupling
from flowzoo_naf.sigmoidal import TOLERANCE, SigmoidalFlow
from torch import Tensor, nn

import flowzoo
from flowzoo.bijectors import residuals
from flowzoo.errors import ConfigError, NotConverged
from flowzoo.nets.made import MADE
from flowzoo.registry import get_architecture
from flowzoo.testing import Subject, checks_kind, checks_math, conformance_suite, random_data
from flowzoo.training.recipe import read_recipe

test_conformance = conformance_suite("naf")

FLOWS = [SigmoidalFlow(5), SigmoidalFlow(1), SigmoidalFlow(3, layers=3)]
every = pytest.mark.parametrize("flow", FLOWS, ids=str)


def raw_of(flow: SigmoidalFlow, n: int, scale: float = 1.5, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return (scale * torch.randn(n, flow.parameters, generator=generator, dtype=torch.float64)).to(dtype)


def test_it_is_equation_8() -> None:
    """Computed as the equation stands, without logarithms, where that is exact."""
    flow = SigmoidalFlow(4)
    raw, x = raw_of(flow, 50), torch.linspace(-3, 3, 50, dtype=torch.float64)
    a, b, w = raw.chunk(3, dim=-1)
    slopes = 1e-3 + nn.functional.softplus(a + math.log(math.expm1(1 - 1e-3)))
    inside = (w.softmax(-1) * torch.sigmoid(slopes * x[:, None] + b)).sum(-1)
    torch.testing.assert_close(flow(x, raw)[0], torch.logit(inside))


@every
def test_it_increases_and_its_slope_is_said(flow: SigmoidalFlow) -> None:
    x = torch.linspace(-30, 30, 601, dtype=torch.float64).requires_grad_()
    for raw in raw_of(flow, 5):
        y, log_slope = flow(x, raw.expand(601, -1))
        assert (y.diff() > 0).all()
        (slope,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(log_slope, slope.log())


@every
def test_zero_is_the_identity(flow: SigmoidalFlow) -> None:
    x = torch.linspace(-20, 20, 81, dtype=torch.float64)
    y, log_slope = flow(x, torch.zeros(81, flow.parameters, dtype=x.dtype))
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), atol=1e-12, rtol=0)


@every
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_it_inverts_also_far_out(flow: SigmoidalFlow, dtype: torch.dtype, error: float) -> None:
    """No bracket is fixed: values of a thousand come back as well."""
    x = torch.cat((torch.linspace(-8, 8, 200), torch.tensor([-1000.0, -60.0, 60.0, 1000.0]))).to(dtype)
    raw = raw_of(flow, len(x), 0.7, dtype)
    with residuals() as found:
        y, log_slope = flow(x, raw)
        back, inverse_log_slope = flow.inverse(y, raw, nn.Identity())
    assert found.count == 1 and found.largest <= TOLERANCE
    torch.testing.assert_close(back, x, atol=error, rtol=error)
    torch.testing.assert_close(inverse_log_slope, -log_slope, atol=1e-3, rtol=1e-3)


def test_float32_stays_finite_where_a_sigmoid_does_not() -> None:
    """sigmoid(40) is 1 in float32, and the logit of 1 infinite: log space knows neither."""
    flow = SigmoidalFlow(3)
    x = torch.tensor([-1e6, -200.0, -40.0, 40.0, 200.0, 1e6], requires_grad=True)
    raw = raw_of(flow, 6, dtype=torch.float32).requires_grad_()
    y, log_slope = flow(x, raw)
    gradients = torch.autograd.grad(y.sum() + log_slope.sum(), (x, raw))
    assert all(found.isfinite().all() for found in (y, log_slope, *gradients))
    assert (y[:3].diff() != 0).all() and (y.sign() == x.sign())[[0, 1, 4, 5]].all()


def test_gradients_are_right_in_both_directions() -> None:
    flow, small = SigmoidalFlow(3, layers=2), SigmoidalFlow(2)
    x = torch.linspace(-2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(flow, (x, raw_of(flow, 3).requires_grad_()))
    raw = raw_of(small, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda y, r: small.inverse(y, r, nn.Identity()), (x, raw), atol=1e-5)


def test_what_has_no_root_says_so() -> None:
    flow = SigmoidalFlow(2)
    y = torch.tensor([[0.3], [math.nan], [0.1]], dtype=torch.float64)
    with pytest.raises(NotConverged, match="rows 1"):
        flow.inverse(y, torch.zeros(3, 1, flow.parameters, dtype=y.dtype), nn.Identity())


def test_passes_and_kinds_are_said() -> None:
    points = flowzoo.create("naf-points")
    assert (points.density_passes, points.sampling_passes) == (1, 2)
    assert points.inverse_kind == "numeric" and points.log_det_kind == "exact"
    coupling = flowzoo.create("naf-coupling-points")
    assert (coupling.density_passes, coupling.sampling_passes) == (1, 1)
    assert coupling.bijector.map_kind.tolerance == TOLERANCE


def autoregressive(dims: int, flow: SigmoidalFlow) -> SigmoidalAutoregressive:
    torch.manual_seed(0)
    made = MADE(torch.arange(1, dims + 1), (6,), flow.parameters, "elu")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return SigmoidalAutoregressive(made, flow).double()


def test_a_sample_takes_one_pass_of_the_network_for_each_value() -> None:
    bijector, calls = autoregressive(4, SigmoidalFlow(2)), []
    bijector.made.register_forward_hook(lambda *_: calls.append(1))
    z, _ = bijector(torch.randn(3, 4, dtype=torch.float64))
    assert len(calls) == 1
    recorded, _ = bijector.inverse(z)
    # One for each value, and one for the log-determinant.
    assert len(calls) == 1 + 4 + 1 == 2 + bijector.map_kind.inverse_passes
    with torch.no_grad():
        quick, _ = bijector.inverse(z)
    assert len(calls) == 1 + 4 + 1 + 1
    torch.testing.assert_close(quick, recorded, atol=1e-8, rtol=1e-8)


def test_samples_have_gradients_by_the_latent() -> None:
    """Those of the inverse are those of the implicit function: the Jacobian's inverse."""
    bijector = autoregressive(3, SigmoidalFlow(2))
    z = torch.randn(3, dtype=torch.float64)
    x = bijector.inverse(z[None])[0][0].detach()
    inverse = torch.autograd.functional.jacobian(lambda v: bijector.inverse(v[None])[0][0], z)
    forward = torch.autograd.functional.jacobian(lambda v: bijector(v[None])[0][0], x)
    torch.testing.assert_close(inverse @ forward, torch.eye(3, dtype=torch.float64))


PLANES: list[dict[str, Any]] = [
    {"dims": 2, "steps": 2, "units": 2},
    {"dims": 2, "steps": 1, "units": 2, "conditioner": "autoregressive", "sigmoid_layers": 2},
]
OTHERS: list[dict[str, Any]] = [
    {"dims": 5, "steps": 4, "hidden_layers": 2},
    {"dims": 4, "steps": 3, "conditioner": "autoregressive"},
    {"image_shape": (3, 4, 4), "steps": 1, "sigmoid_layers": 2},
    {"image_shape": (1, 4, 4), "steps": 1, "marginals": "histogram"},
]


@pytest.mark.parametrize("config", PLANES, ids=str)
def test_the_density_of_a_plane_integrates_to_the_share_of_samples(config: dict[str, Any]) -> None:
    subject = Subject.variant("naf", **{"features": 8, "units": 3, **config})
    assert checks_kind.density_integrates(subject)


@pytest.mark.parametrize("config", PLANES + OTHERS, ids=str)
def test_every_variant_is_what_it_says(config: dict[str, Any]) -> None:
    subject = Subject.variant("naf", **{"features": 8, "units": 3, **config})
    assert checks_kind.kind_is_said(subject)
    assert checks_kind.log_det_is_jacobian(subject)
    assert checks_math.inverse_float64(subject)
    assert checks_math.inverse_float32(subject)
    assert checks_math.reconstruction_exact(subject)
    assert checks_math.gradient_reaches_all(subject)


def test_a_fresh_flow_is_near_the_identity_and_its_units_are_not_alike() -> None:
    flow = flowzoo.create("naf-points", init_spread=0.0).double()
    v = random_data(flow, 20, seed=0)
    normal = -0.5 * v.square().sum(1) - math.log(2 * math.pi)
    torch.testing.assert_close(flow.log_prob(v), normal, atol=0.05, rtol=0)
    spread = flowzoo.create("naf", dims=2, steps=1).double()
    z, _ = spread.bijector(v)
    torch.testing.assert_close(z, v, atol=0.02, rtol=0.1)
    spread.log_prob(v).sum().backward()
    [net] = [m.net for m in spread.modules() if isinstance(m, SigmoidalCoupling)]
    [*_, (_, bias)] = net.named_parameters()
    assert bias.grad is not None
    slopes = bias.grad[:16]
    assert float(slopes.max() - slopes.min()) > 0.05 * float(slopes.abs().max())


def test_it_learns_what_no_affine_map_could() -> None:
    """Two far clusters on each axis: an affine flow keeps the normal's entropy, this one does not."""
    torch.manual_seed(0)
    flow = flowzoo.create("naf", dims=2, units=8, steps=1, features=16, conditioner="autoregressive")

    def clusters(n: int) -> Tensor:
        return (2.0 * torch.randint(2, (n, 2)) - 1) + 0.1 * torch.randn(n, 2)

    flow.initialize(clusters(1000))
    before = float(flow.log_prob(clusters(500)).detach().mean())
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-2)
    for _ in range(200):
        optimizer.zero_grad()
        (-flow.log_prob(clusters(200)).mean()).backward()
        optimizer.step()
    after = float(flow.log_prob(clusters(2000)).detach().mean())
    best = -2 * (math.log(2) + math.log(0.1) + 0.5 * math.log(2 * math.pi * math.e))
    assert before < best - 2
    assert after > best - 0.8
    # And its samples are in the clusters.
    samples = flow.sample(500, seed=0)
    assert float(((samples.abs() - 1).abs() < 0.4).all(dim=1).float().mean()) > 0.8


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"dims": 1}, "2 or more"),
        ({"dims": 2, "units": 0}, "units out of range"),
        ({"dims": 2, "marginals": "histogram"}, "vectors have none"),
        ({"dims": 2, "init_range": 0.0}, "init_range out of range"),
        ({"image_shape": (1, 6, 6)}, "squeezed 2 times"),
        ({"image_shape": (1, 4, 4), "conditioner": "autoregressive"}, "for vectors"),
        ({"image_shape": (1, 4, 4), "logit_alpha": 0.0}, "logit_alpha out of range"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        flowzoo.create("naf", **config)


def test_a_presets_recipe_trains_that_preset_on_its_data() -> None:
    """A recipe's name says which preset it trains; one shared by two presets would train the first."""
    presets = get_architecture("naf").presets
    for name, preset in presets.items():
        if preset.recipe is None:
            continue
        package, _, path = preset.recipe.partition(":")
        recipe = read_recipe(str(files(package) / path))
        assert recipe.name == f"naf-{name}"
        assert recipe.data.dataset == (preset.dataset or "")
    assert [name for name, preset in presets.items() if preset.recipe is None] == ["toy"]
