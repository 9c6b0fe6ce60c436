"""Continuous flows: solvers of known order, one probe a solution, the inverse, penalties, the audit."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from flowzoo_ffjord.bijectors import ContinuousFlow, adaptive, penalised
from flowzoo_ffjord.model import audit_solver
from flowzoo_ffjord.networks import Velocity
from flowzoo_ffjord.objective import rnode
from flowzoo_ffjord.solvers import dopri5, rk4
from torch import Tensor, nn

import flowzoo
from flowzoo.bijectors import residuals, values_alone
from flowzoo.data import get_dataset
from flowzoo.errors import ConfigError, InputError, NotConverged
from flowzoo.nets.keyed import Keys, draw, keyed_draws
from flowzoo.registry import get_architecture
from flowzoo.testing import Subject, checks_kind, conformance_suite, randomize

test_conformance = conformance_suite("ffjord")


class Linear(nn.Module):
    """f(z, t) = A z + b, whose flow is known."""

    def __init__(self, dims: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(scale * torch.randn(dims, dims, generator=generator).double())
        self.shift = nn.Parameter(torch.zeros(dims).double())

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return z @ self.matrix.T + self.shift


def flow_of(dims: int = 3, *, scale: float = 0.5, **options: Any) -> ContinuousFlow:
    """A flow of a network with random weights."""
    torch.manual_seed(0)
    flow = ContinuousFlow(Velocity(dims, (8,), "tanh", image=False), **options).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return flow


X = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.5, -0.2]], dtype=torch.float64)


# --- solvers --------------------------------------------------------------------------------------------------------


def test_the_grid_has_order_four() -> None:
    errors = []
    for steps in (8, 16):
        flow = ContinuousFlow(Linear(), steps, "exact").double()
        z, _ = flow(X)
        errors.append(float((z - X @ torch.matrix_exp(flow.velocity.matrix).T).abs().max()))  # type: ignore[operator, arg-type]
    assert 12 < errors[0] / errors[1] < 20


def test_the_log_determinant_is_the_integral_of_the_trace() -> None:
    flow = ContinuousFlow(Linear(), 2, "exact").double()
    flow.sqrt_end_time.data.fill_(1.3)
    torch.testing.assert_close(flow(X)[1], (1.69 * flow.velocity.matrix.trace()).expand(2))  # type: ignore[operator, union-attr]


def test_time_is_seen_by_the_velocity() -> None:
    def derivative(state: tuple[Tensor, ...], t: Tensor) -> tuple[Tensor, ...]:
        return (torch.cos(t).expand_as(state[0]),)

    (z,) = rk4(derivative, (torch.zeros(2, 1).double(),), torch.tensor(2.0).double(), 20)
    torch.testing.assert_close(z, torch.sin(torch.tensor(2.0).double()).expand(2, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 4)])
def test_one_time_for_all_is_the_same_time_for_each(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    velocity = Velocity(3, (8,), "tanh", image=len(shape) == 3).double()
    z, t = torch.randn(2, *shape).double(), torch.tensor(0.7).double()
    torch.testing.assert_close(velocity(z, t), velocity(z, t.expand(2)), rtol=0, atol=1e-14)
    assert not torch.equal(velocity(z, t), velocity(z, 2 * t))


def test_the_adaptive_method_takes_steps_of_each_items_own() -> None:
    speeds = torch.tensor([[1.0], [40.0], [0.1]]).double()

    def rotation(speeds: Tensor) -> Any:
        def derivative(state: tuple[Tensor, ...], t: Tensor) -> tuple[Tensor, ...]:
            x, y = state[0].unbind(1)
            return (speeds * torch.stack((-y, x), dim=1),)

        return derivative

    start, end = torch.tensor([[1.0, 0.0]]).double().expand(3, 2), torch.tensor(1.0).double()
    (z,), taken = dopri5(rotation(speeds), (start,), end, 1e-8, 1e-8)
    expected = torch.cat((torch.cos(speeds), torch.sin(speeds)), dim=1)
    torch.testing.assert_close(z, expected, atol=1e-5, rtol=0)
    assert taken[1] > 5 * taken[0] > 0
    for i in range(3):
        (alone,), count = dopri5(rotation(speeds[i : i + 1]), (start[i : i + 1],), end, 1e-8, 1e-8)
        assert torch.equal(alone[0], z[i])
        assert count[0] == taken[i]


def test_an_explosion_is_not_solved_silently() -> None:
    def derivative(state: tuple[Tensor, ...], t: Tensor) -> tuple[Tensor, ...]:
        return (state[0].square(),)

    with pytest.raises(NotConverged, match="steps"):
        dopri5(derivative, (torch.full((1, 1), 2.0).double(),), torch.tensor(1.0).double(), 1e-6, 1e-6, 200)


# --- the flow -------------------------------------------------------------------------------------------------------


def test_one_probe_serves_a_whole_solution() -> None:
    flow = ContinuousFlow(Linear(), 5).double()
    with keyed_draws(Keys(seed=1, items=[4, 5])):
        e, (_, log_det) = draw(flow, "rademacher", (3,), X), flow(X)
    torch.testing.assert_close(log_det, torch.einsum("bi,ij,bj->b", e, flow.velocity.matrix, e))  # type: ignore[arg-type]


def test_exact_and_estimated_traces_agree_in_the_mean() -> None:
    exact, flow = flow_of(trace="exact"), flow_of()
    expected = exact(X)[1]
    found = flow(X.repeat(4000, 1))[1].reshape(-1, 2)
    assert ((found.mean(0) - expected).abs() <= 5 * found.std(0) / 4000**0.5).all()
    assert (flow.log_det_kind, exact.log_det_kind) == ("unbiased", "exact")
    assert exact.map_kind.forward == exact.map_kind.inverse == "numeric"
    assert exact.forward_passes == 16


def test_the_steps_taken_are_inverted_on_the_coarsest_grid() -> None:
    flow = flow_of(steps=1, trace="exact", scale=0.2)
    z, log_det = flow(X)
    with residuals() as found, torch.no_grad():
        back, inverse_log_det = flow.inverse(z)
    assert found.count > 0
    assert found.largest <= 1e-11
    torch.testing.assert_close(back, X, atol=1e-9, rtol=0)
    torch.testing.assert_close(inverse_log_det, -log_det, atol=1e-9, rtol=0)


def test_a_grid_too_coarse_to_be_inverted_is_said() -> None:
    flow = ContinuousFlow(Linear(scale=30.0), 1, "exact").double()
    with pytest.raises(NotConverged, match="did not converge"), torch.no_grad():
        flow.inverse(X)


def test_drawn_samples_are_the_solution_backwards_by_half_the_evaluations() -> None:
    flow = flow_of(steps=8, trace="exact", scale=0.2)
    calls: list[object] = []
    flow.velocity.register_forward_hook(lambda *_: calls.append(None))
    with torch.no_grad():
        exact = flow.inverse(X)[0]
        calls.clear()
        with values_alone(drawn=True):
            drawn = flow.inverse(X)[0]
        assert len(calls) == flow.inverse_passes == 32
        calls.clear()
        with values_alone():
            torch.testing.assert_close(flow.inverse(X)[0], exact, atol=0, rtol=0)
        assert len(calls) >= 64
    assert 0 < (drawn - exact).abs().max() < 1e-5


def test_gradients_of_drawn_samples_are_right() -> None:
    flow = flow_of(trace="exact", steps=2, scale=0.2)
    with values_alone(drawn=True):
        assert torch.autograd.gradcheck(
            lambda z: flow.inverse(z)[0], (X.clone().requires_grad_(),), atol=1e-6
        )


def test_gradients_of_the_inverse_and_of_the_end_time() -> None:
    flow = flow_of(trace="exact", steps=2, scale=0.2)
    assert torch.autograd.gradcheck(lambda z: flow.inverse(z)[0], (X.clone().requires_grad_(),), atol=1e-6)
    flow(X)[1].sum().backward()
    assert flow.sqrt_end_time.grad is not None
    assert flow.sqrt_end_time.grad.abs() > 0
    assert "sqrt_end_time" in dict(flow_of(learn_time=False).named_buffers())


def test_nothing_recorded_gives_the_same_values() -> None:
    flow = flow_of(trace="exact")
    expected = flow(X)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            found = flow(X.clone())
        torch.testing.assert_close(found[1], expected[1].detach())
        assert not found[1].requires_grad


# --- penalties and audits -------------------------------------------------------------------------------------------


def test_penalties_are_the_integrals_they_say() -> None:
    flow = ContinuousFlow(Linear(), 40, "exact").double()
    with penalised(flow) as found:
        flow(X)
    assert isinstance(found.jacobian, Tensor)
    torch.testing.assert_close(found.jacobian, flow.velocity.matrix.square().sum().expand(2))  # type: ignore[operator, union-attr]
    still = ContinuousFlow(Linear(scale=0.0), 3).double()
    still.velocity.shift.data.fill_(2.0)  # type: ignore[union-attr, operator]
    with penalised(still) as found:
        still(X)
    torch.testing.assert_close(found.kinetic, torch.full((2,), 12.0).double())
    assert flow.penalties is None


def test_rnode_adds_penalties_that_can_be_differentiated() -> None:
    flow = flowzoo.create("ffjord-moons", steps=2).double()
    flow.initialize(torch.randn(50, 2).double())
    x = torch.randn(4, 2).double()
    noise = flow.draw_noise(4)

    def log_prob(x: Tensor, noise: Tensor | None, y: Tensor | None) -> Tensor:
        return flow.log_prob(x, y, noise=noise)

    losses = rnode(flow, log_prob, x, noise, None)
    plain = flow.per_dim(log_prob(x, noise, None))
    assert losses.shape == (4,)
    assert (losses > plain).all()
    (losses - plain.detach()).sum().backward()
    assert all(p.grad is not None for p in flow.parameters())
    flow.set_memory("checkpoint")
    with pytest.raises(InputError, match="store"):
        rnode(flow, log_prob, x, noise, None)
    other = flowzoo.create("nice-tiny")
    with pytest.raises(InputError, match="continuous"):
        rnode(other, log_prob, x, noise, None)


def test_the_objective_is_an_entry_point() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["flowzoo.objectives"]["rnode"].partition(":")
    assert getattr(import_module(module), name) is rnode
    recipe = tomllib.loads((Path(__file__).parents[1] / "flowzoo_ffjord/recipes/mnist.toml").read_text())
    assert recipe["train"]["objective"] == "rnode"


def test_evaluation_may_take_a_finer_grid_than_training() -> None:
    coarse, both = (flow_of(steps=2, eval_steps=n, trace="exact", scale=0.2) for n in (0, 16))
    fine = flow_of(steps=16, trace="exact", scale=0.2)
    for training in (True, False):
        expected = (coarse if training else fine).train(training)
        both.train(training)
        for direction in ("forward", "inverse"):
            for found, exact in zip(
                getattr(both, direction)(X), getattr(expected, direction)(X), strict=True
            ):
                assert torch.equal(found, exact)
    assert both.map_kind.forward_passes == 64
    with pytest.raises(ConfigError, match="eval_steps"):
        flowzoo.create("ffjord-moons", eval_steps=-1)


def test_an_audit_finds_the_grids_error() -> None:
    torch.manual_seed(0)
    x, errors = torch.randn(5, 2).double(), []
    for steps in (1, 2, 8):
        flow = randomize(
            flowzoo.create("ffjord-moons", steps=steps, eval_steps=0, hidden=(16,)).double().eval(),
            3,
            scale=0.5,
        )
        found = audit_solver(flow, x, tolerance=1e-9)
        errors.append(float((found.grid - found.adaptive).abs().max()))
        assert (found.evaluations >= 7).all()
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    with adaptive(flow) as audit:
        flow.log_prob(x)
    assert len(audit.evaluations) == 1
    assert not any(part.audit for part in flow.modules() if isinstance(part, ContinuousFlow))


def test_the_shipped_density_holds_under_the_adaptive_method() -> None:
    moons = get_dataset("points:two-moons").load("test")
    found = audit_solver(flowzoo.load("ffjord-moons"), moons[:150])
    assert abs(float((found.grid - found.adaptive).mean())) < 0.005
    apart = moons.true_log_prob(moons[:150]) - found.adaptive  # type: ignore[attr-defined]
    error = float(apart.std() / 150**0.5)
    assert -2 * error < float(apart.mean()) < 0.02 + 3 * error, (
        "neither better than the truth nor far from it"
    )
    trained_on = [part for part in flowzoo.load("ffjord-moons").modules() if isinstance(part, ContinuousFlow)]
    assert all(part.train_steps < part.eval_steps for part in trained_on)


# --- the models -----------------------------------------------------------------------------------------------------


def count(name: str) -> int:
    return sum(p.numel() for p in flowzoo.create(name, device="meta").parameters())


def test_parameter_counts_are_those_of_the_authors_code() -> None:
    def net(c: int) -> int:
        widths = (c, 64, 64, 64, c)
        convs = (9 * (widths[i] + 1) * widths[i + 1] + widths[i + 1] for i in range(4))
        return sum(convs) + 1  # and the end time

    def multiscale(c: int, scales: int) -> int:
        channels = [c * 2**i for i in range(scales)]
        return sum(2 * net(k) for k in channels) + sum(2 * net(4 * k) for k in channels[:-1])

    assert count("ffjord-paper-mnist") == multiscale(1, 3) == 800_646
    assert count("ffjord-cifar10") == multiscale(3, 4) == 1_358_882


def test_published_figures_say_why_they_are_not_comparable() -> None:
    presets = get_architecture("ffjord").presets
    found = {name: p.published for name, p in presets.items() if p.published is not None}
    assert {name: p.bpd for name, p in found.items()} == {"paper-mnist": 0.99, "cifar10": 3.40}
    assert all("batch-dependent-solver" in p.incomparable for p in found.values())


@pytest.mark.parametrize(
    "config",
    [
        {"dims": 2, "blocks": 2, "hidden": (8, 8), "activation": "tanh", "trace": "exact", "steps": 6},
        {"dims": 1, "blocks": 1, "hidden": (8,), "trace": "exact", "steps": 6, "learn_time": False},
    ],
    ids=str,
)
def test_every_variant_is_what_it_says(config: dict[str, Any]) -> None:
    subject = Subject.variant("ffjord", **config)
    assert checks_kind.kind_is_said(subject)
    assert checks_kind.log_det_is_jacobian(subject)
    if config["dims"] == 1:
        assert checks_kind.density_integrates(subject)


def test_channels_that_leave_early_come_back() -> None:
    model = Subject.variant("ffjord", image_shape=(1, 4, 4), scales=2, blocks=1, hidden=(4,), steps=2).build(
        0
    )
    x = torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8)
    assert torch.equal(model.reconstruct(x), x)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"dims": 2, "hidden": ()}, "1 or more"),
        ({"dims": 2, "marginals": "histogram"}, "vectors have none"),
        ({"dims": 2, "alpha": 0.6}, "alpha"),
        ({"dims": 100, "trace": "exact"}, "at most 64"),
        ({"image_shape": (1, 6, 6)}, "halved"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        flowzoo.create("ffjord", **config)
