"""Residual flows: spectral norms, the estimates and their gradients, the inverse, and the traps of public code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from flowzoo_residual.bijectors import ResidualBlock
from flowzoo_residual.branch import convolutional, fully_connected
from flowzoo_residual.estimators import MOST_DRAWN, power_series, roulette, truncated
from flowzoo_residual.spectral import SpectralLayer
from torch import Tensor

import flowzoo
from flowzoo.bijectors import residuals
from flowzoo.errors import ConfigError, NotConverged
from flowzoo.registry import get_architecture
from flowzoo.testing import Subject, checks_kind, conformance_suite

test_conformance = conformance_suite("residual")


def block_of(dims: int = 3, *, seed: int = 0, coefficient: float = 0.8, **options: Any) -> ResidualBlock:
    torch.manual_seed(seed)
    branch = fully_connected(dims, 8, 3, "lipswish", coefficient, activated_input=False)
    block = ResidualBlock(branch, **options).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter))
    return block.eval()


def layers_of(module: torch.nn.Module) -> list[SpectralLayer]:
    return [part for part in module.modules() if isinstance(part, SpectralLayer)]


# --- estimates ------------------------------------------------------------------------------------------------------


def test_roulette_numbers_have_the_distribution_they_say() -> None:
    torch.manual_seed(0)
    count = 20_000
    j = torch.arange(1, 9).double()
    tails: dict[Any, Tensor] = {
        ("poisson", 2.0): torch.special.gammainc(j, torch.tensor(2.0).double()),
        ("geometric", 0.5): 0.5**j,
    }
    for (kind, rate), tail in tails.items():
        series = roulette(torch.rand(count, MOST_DRAWN).double(), 2, kind, rate)
        assert torch.equal(series.value[:2], torch.ones(2, count).double())
        drawn = series.value[2:10]
        numbers = (drawn > 0).double().mean(dim=1)
        assert (
            (numbers - tail[: len(numbers)]).abs() <= 5 * (tail[: len(numbers)] / count).sqrt() + 1e-4
        ).all()
        for row, chance in zip(drawn, tail, strict=False):
            torch.testing.assert_close(
                row[row > 0], (1 / chance).expand(int((row > 0).sum())), rtol=1e-5, atol=0
            )


def test_each_item_has_a_number_of_terms_of_its_own() -> None:
    series = roulette(torch.rand(64, MOST_DRAWN).double(), 1, "poisson", 2.0)
    terms = (series.value > 0).sum(dim=0)
    assert len(terms.unique()) >= 4


def many(x: Tensor, count: int) -> Tensor:
    return x.repeat(count, 1)


@pytest.mark.parametrize(
    "options", [{}, {"distribution": "geometric", "rate": 0.4, "probe": "rademacher"}], ids=str
)
def test_the_estimate_in_training_is_the_log_determinant_and_not_a_surrogate(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    exact, block = block_of(estimator="exact"), block_of(**options).train()
    x = torch.randn(2, 3).double()
    expected = exact(x)[1]
    _, found = block(many(x, 10_000))
    found = found.reshape(-1, 2)
    sigma = found.std(dim=0) / 100
    assert ((found.mean(dim=0) - expected).abs() <= 5 * sigma).all()
    assert (sigma < 0.02).all()


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -2.0)])
def test_neumann_gradients_are_right_for_any_upstream_gradient(weights: tuple[float, float]) -> None:
    torch.manual_seed(1)
    count, upstream = 20_000, torch.tensor(weights).double()
    x = torch.randn(2, 3).double()
    exact, block = block_of(estimator="exact"), block_of(rate=2.0).train()

    def gradients(block: ResidualBlock, total: Tensor) -> Tensor:
        found = torch.autograd.grad(
            total, list(block.parameters()), materialize_grads=True, allow_unused=True
        )
        return torch.cat([g.flatten() for g in found])

    expected = gradients(exact, (upstream * exact(x)[1]).sum())
    found = gradients(block, (upstream.repeat(count) * block(many(x, count))[1]).sum() / count)
    assert float((found - expected).norm() / expected.norm()) < 0.05


def test_the_memory_saving_backward_is_linear_in_the_upstream_gradients() -> None:
    block, x = block_of().train(), torch.randn(3, 3).double().requires_grad_()

    def gradients(upstream: Tensor) -> Tensor:
        torch.manual_seed(5)
        z, log_det = block(x)
        found = torch.autograd.grad(
            (upstream * (log_det + z.square().sum(1))).sum(), [x, *block.parameters()]
        )
        return torch.cat([g.flatten() for g in found])

    parts = torch.eye(3).double()
    together = gradients(torch.tensor([1.0, -2.0, 0.5]).double())
    torch.testing.assert_close(
        together, gradients(parts[0]) - 2 * gradients(parts[1]) + 0.5 * gradients(parts[2])
    )


def saved_numbers(block: ResidualBlock) -> int:
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(torch.randn(200, 3).double())
    return total


def test_memory_of_the_backward_does_not_grow_with_the_number_of_terms() -> None:
    few, more = (saved_numbers(block_of(exact_terms=n).train()) for n in (1, 12))
    assert more == few
    assert few < saved_numbers(block_of(exact_terms=1, gradient="series").train()) / 3


def test_the_truncated_series_is_biased_within_its_bound() -> None:
    torch.manual_seed(0)
    exact, terms = block_of(estimator="exact", coefficient=0.9), 3
    block = block_of(estimator="truncated", exact_terms=terms, coefficient=0.9)
    assert block.log_det_kind == "biased"
    assert exact.log_det_kind == "exact"
    x = torch.randn(1, 3).double()
    found = block(many(x, 20_000))[1]
    bias, sigma = float((found.mean() - exact(x)[1]).detach()), float(found.std()) / 20_000**0.5
    lipschitz = exact.branch.certified_lipschitz()
    bound = 3 * (-math.log(1 - lipschitz) - sum(lipschitz**k / k for k in range(1, terms + 1)))
    assert abs(bias) <= bound + 5 * sigma


def test_estimates_work_where_nothing_is_recorded() -> None:
    block, x = block_of(), torch.randn(2, 3).double()
    torch.manual_seed(0)
    expected = block(x)[1].detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        torch.manual_seed(0)
        with context:
            _, found = block(x.clone())
        torch.testing.assert_close(found, expected)
        assert not found.requires_grad


# --- the inverse ----------------------------------------------------------------------------------------------------


def test_the_inverse_is_as_near_as_its_certificate_says() -> None:
    block, x = block_of(coefficient=0.95), torch.randn(6, 3).double() * 5
    z, _ = block(x)
    with residuals() as found, torch.no_grad():
        back, _ = block.inverse(z)
    assert found.count == 1
    assert found.largest <= 1e-11
    lipschitz = block.branch.certified_lipschitz()
    assert lipschitz < 0.95**3 * 1.005
    scale = float(z.abs().max())
    assert float((back - x).norm(dim=1).max()) <= 3**0.5 * found.largest * scale / (1 - lipschitz) + 1e-13


def test_an_item_is_inverted_as_if_it_were_alone() -> None:
    block = block_of(coefficient=0.95, estimator="exact")
    z = torch.tensor([[0.1, 0.0, 0.2], [30.0, -20.0, 5.0], [1.0, 2.0, 3.0]]).double()
    with torch.no_grad():
        together = block.inverse(z)[0]
        alone = torch.cat([block.inverse(row)[0] for row in z.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-14)


def test_a_branch_that_does_not_contract_is_not_inverted_silently() -> None:
    block = block_of()
    for layer in layers_of(block):
        layer.coefficient = 4.0
        layer.weight.data.mul_(100)
    with pytest.raises(NotConverged, match="rows 0, 1"), torch.no_grad():
        block.inverse(torch.randn(2, 3).double())


def test_gradients_of_the_inverse() -> None:
    block = block_of(coefficient=0.9, estimator="exact")
    z = torch.randn(2, 3).double().requires_grad_()
    weight = layers_of(block)[0].weight
    direction = torch.randn_like(weight)

    def inverse(z: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        weights = {"block.branch.layers.0.weight": weight + step * direction}
        found: tuple[Tensor, Tensor] = torch.func.functional_call(_Inverted(block), weights, (z,))
        return found

    options: dict[str, Any] = {"atol": 1e-6, "check_undefined_grad": False}
    assert torch.autograd.gradcheck(inverse, (z, torch.zeros(()).double().requires_grad_()), **options)


class _Inverted(torch.nn.Module):
    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.block.inverse(z)


# --- the models -----------------------------------------------------------------------------------------------------


def conv_block(c: int, hidden: int) -> int:
    """Convolutions 3x3, 1x1, 3x3 with biases."""
    return 9 * c * hidden + hidden + hidden * hidden + hidden + 9 * hidden * c + c


def count(name: str) -> int:
    return sum(p.numel() for p in flowzoo.create(name, device="meta").parameters())


def test_parameter_counts_are_those_of_the_authors_code() -> None:
    def resflow(c: int, size: int, blocks: int) -> int:
        dims = c * size * size
        shapes = [(c * 4**i) for i in range(3)]
        convs = sum(blocks * (conv_block(k, 512) + 3 + 2 * k) for k in shapes)
        dense = 4 * (dims * 128 + 128 + 128**2 + 128 + 128 * dims + dims + 3 + 2 * dims)
        # An ActNorm before the first block, which has one activation less.
        return convs + dense + 2 * c - 1

    def iresnet(channels: tuple[int, ...], dims: int) -> int:
        blocks = (16 * (conv_block(c, 512) + 2 * c) for c in channels)
        return sum(blocks) + 2 * dims

    assert count("residual-paper-mnist") == resflow(1, 28, 16) == 16_608_589
    assert count("residual-cifar10") == resflow(3, 32, 16) == 25_174_129
    assert count("residual-imagenet32") == resflow(3, 32, 32) == 47_099_089
    # Squeezed first, then half of the channels leave and the others are squeezed.
    assert count("residual-iresnet-cifar10") == iresnet((12, 24, 48), 3072) == 25_028_544


def test_published_figures_say_why_they_are_not_comparable() -> None:
    presets = get_architecture("residual").presets
    found = {name: p.published for name, p in presets.items() if p.published is not None}
    assert {name: p.bpd for name, p in found.items()} == {
        "paper-mnist": 0.970,
        "cifar10": 3.280,
        "imagenet32": 4.010,
        "iresnet-mnist": 1.06,
        "iresnet-cifar10": 3.45,
    }
    assert "3x32x32" in found["iresnet-mnist"].incomparable
    assert all("biased-logdet" in p.incomparable for name, p in found.items() if name.startswith("iresnet"))
    assert all(p.incomparable for p in found.values())


VECTORS: dict[str, Any] = {"dims": 2, "blocks": (2,), "channels": 8, "coefficient": 0.9}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({**VECTORS, "estimator": "exact", "activation": "elu"}, "exact"),
        ({**VECTORS, "estimator": "truncated", "exact_terms": 3, "learned_base": True}, "biased"),
        (
            {**VECTORS, "roulette": "geometric", "rate": 0.5, "eval_terms": 3, "normalization": "none"},
            "unbiased",
        ),
    ],
    ids=str,
)
def test_every_variant_is_what_it_says(config: dict[str, Any], kind: str) -> None:
    subject = Subject.variant("residual", **config)
    assert subject.build(0).log_det_kind == kind
    assert checks_kind.kind_is_said(subject)
    assert checks_kind.density_integrates(subject)
    if kind == "exact":
        assert checks_kind.log_det_is_jacobian(subject)


def test_channels_that_leave_early_come_back() -> None:
    config: dict[str, Any] = {
        "image_shape": (2, 4, 4),
        "blocks": (1, 1),
        "channels": 4,
        "fc_blocks": 0,
        "factor_out": True,
        "normalization": "before",
        "preprocessing": "center",
        "estimator": "truncated",
        "exact_terms": 2,
        "coefficient": 0.8,
    }
    model = Subject.variant("residual", **config).build(0)
    x = torch.randint(0, 256, (3, 2, 4, 4), dtype=torch.uint8)
    assert torch.equal(model.reconstruct(x), x)


def test_a_network_of_convolutions_is_a_function_of_its_tensors() -> None:
    branch = convolutional((2, 4, 4), 3, (3, 1, 3), "lipswish", 0.9, True).double()
    x = torch.randn(2, 2, 4, 4).double()
    torch.testing.assert_close(branch(x), branch.run(x, branch.tensors()))
    assert branch.bound() == pytest.approx(0.9**3)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"dims": 2, "blocks": (2, 2)}, "of vectors it is one number"),
        ({"dims": 2, "blocks": (2,), "coefficient": 1.0}, "between 0 and 1"),
        ({"dims": 100, "blocks": (2,), "estimator": "exact"}, "at most 64"),
        ({"image_shape": (1, 4, 4), "estimator": "exact"}, "for vectors"),
        ({"image_shape": (1, 6, 6), "blocks": (1, 1, 1)}, "halved"),
        ({"dims": 2, "blocks": (2,), "marginals": "histogram"}, "vectors have none"),
        ({"dims": 2, "blocks": (2,), "kernels": (2,)}, "odd"),
        ({"dims": 2, "blocks": (2,), "roulette": "geometric"}, "chance"),
        ({"dims": 2, "blocks": (2,), "estimator": "truncated", "exact_terms": 0}, "truncated to nothing"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        flowzoo.create("residual", **config)


@pytest.mark.parametrize("activation", ["lipswish", "elu"])
@pytest.mark.parametrize("images", [True, False])
def test_products_with_the_jacobian_are_those_of_autograd(activation: Any, images: bool) -> None:
    torch.manual_seed(0)
    branch = (
        convolutional((2, 6, 5), 7, (3, 1, 3), activation, 0.9, activated_input=True)
        if images
        else fully_connected(4, 9, 3, activation, 0.9, activated_input=False)
    ).double()
    x = torch.randn(3, *((2, 6, 5) if images else (4,)), dtype=torch.float64, requires_grad=True)
    tensors = branch.tensors()
    y, row_of = branch.linearised(x, tensors)
    expected = branch.run(x, tensors)
    torch.testing.assert_close(y, expected)
    u = torch.randn_like(y)
    torch.testing.assert_close(row_of(u), torch.autograd.grad(expected, x, u)[0])
    assert not row_of(u).requires_grad


def test_a_series_never_works_with_subnormal_numbers() -> None:
    given: list[Tensor] = []

    def row_of(u: Tensor) -> Tensor:
        given.append(u)
        return 1e-4 * u

    probe = torch.randn(3, 5)
    log_det, neumann = power_series(row_of, probe, truncated(30, probe))
    assert all(bool(((u == 0) | (u.abs() > 1e-30)).all()) for u in given)
    assert not given[-1].any()
    expected = torch.log1p(torch.tensor(1e-4, dtype=torch.float64)) * probe.double().square().sum(1)
    torch.testing.assert_close(log_det.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(neumann, probe / (1 + 1e-4))
