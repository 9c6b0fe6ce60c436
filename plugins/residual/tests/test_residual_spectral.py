"""The spectral norms of residual flows: their values, their vectors, and the certificate."""

from __future__ import annotations

import math

import pytest
import torch
from flowzoo_residual.bijectors import ResidualBlock
from flowzoo_residual.branch import LipSwish, fully_connected
from flowzoo_residual.model import certify
from flowzoo_residual.spectral import SpectralConv2d, SpectralLayer, SpectralLinear, converge
from torch import Tensor

import flowzoo
from flowzoo.testing import randomize
from flowzoo.training.ema import Ema


def block_of(dims: int = 3) -> ResidualBlock:
    torch.manual_seed(0)
    branch = fully_connected(dims, 8, 3, "lipswish", 0.8, activated_input=False)
    block = ResidualBlock(branch).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter))
    return block.eval()


def layers_of(module: torch.nn.Module) -> list[SpectralLayer]:
    return [part for part in module.modules() if isinstance(part, SpectralLayer)]


def matrix_of(layer: SpectralLayer, shape: tuple[int, ...]) -> Tensor:
    """The whole linear map, as it is used."""
    weight, dims = layer.normalised().detach(), math.prod(shape)
    return layer.apply_weight(torch.eye(dims).double().reshape(dims, *shape), weight).flatten(1).T


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (3, 2), (3, 3)])
@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_the_norm_is_the_largest_singular_value(inputs: int, outputs: int, kernel: int) -> None:
    torch.manual_seed(0)
    made: SpectralLayer = (
        SpectralConv2d(inputs, outputs, kernel, (4, 5), 0.9)
        if kernel
        else SpectralLinear(inputs, outputs, 0.9)
    )
    layer = made.double()
    shape = (inputs, 4, 5) if kernel else (inputs,)
    for scale, norm in ((5.0, 0.9), (0.01, None)):
        with torch.no_grad():
            layer.weight.copy_(scale * torch.randn_like(layer.weight))
        found = float(torch.linalg.matrix_norm(matrix_of(layer, shape), 2))
        assert layer.certified_norm() == pytest.approx(found, rel=1e-6)
        if norm is None:
            torch.testing.assert_close(layer.normalised(), layer.weight)
        else:
            assert found == pytest.approx(norm, rel=1e-3)


def test_a_kernel_has_another_norm_on_images_of_another_size() -> None:
    torch.manual_seed(0)
    small = SpectralConv2d(1, 4, 3, (2, 2), 0.9).double()
    large = SpectralConv2d(1, 4, 3, (16, 16), 0.9).double()
    with torch.no_grad():
        large.weight.copy_(small.weight.mul_(20))
    assert small.normalised().norm() > 1.05 * large.normalised().norm()


def test_vectors_are_buffers_that_survive_saving() -> None:
    model = flowzoo.create("residual-tiny")
    names = [name for name in model.state_dict() if name.endswith("vector")]
    assert len(names) == len(layers_of(model)) == 9  # there before the first batch
    model = randomize(model.double().eval(), 1)
    other = flowzoo.create("residual-tiny").double()
    other.load_state_dict(model.state_dict())
    for mine, theirs in zip(layers_of(other), layers_of(model), strict=True):
        mine.train(False)
        assert torch.equal(mine.vector, theirs.vector), "a converged vector needs no further iteration"
        assert torch.equal(mine.normalised(), theirs.normalised())


def test_only_training_and_an_explicit_call_write_the_vectors() -> None:
    block = block_of()
    x = torch.randn(2, 3).double()
    with torch.no_grad():
        for layer in layers_of(block):
            layer.weight.add_(3 * torch.randn_like(layer.weight))
    before = [layer.vector.clone() for layer in layers_of(block)]
    block(x)
    assert all(torch.equal(a, layer.vector) for a, layer in zip(before, layers_of(block), strict=True))
    in_eval_mode = [layer.normalised() for layer in layers_of(block)]
    converge(block)
    assert not any(torch.equal(a, layer.vector) for a, layer in zip(before, layers_of(block), strict=True))
    for before_call, layer in zip(in_eval_mode, layers_of(block), strict=True):
        torch.testing.assert_close(before_call, layer.normalised(), rtol=1e-4, atol=0)
    with torch.no_grad():
        layers_of(block)[0].weight.add_(torch.randn_like(layers_of(block)[0].weight))
    before = [layer.vector.clone() for layer in layers_of(block)]
    block.train()(x)
    assert not torch.equal(before[0], layers_of(block)[0].vector)


@pytest.mark.parametrize("mode", ["changed in eval mode", "average of weights", "trained"])
def test_blocks_contract_whatever_became_of_the_weights(mode: str) -> None:
    torch.manual_seed(0)
    model = flowzoo.create("residual-tiny").double().eval()
    if mode == "changed in eval mode":
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter))
    else:
        model.train()
        ema, optimizer = Ema(model, 0.9), torch.optim.SGD(model.parameters(), 1e-3)
        for step in range(4):
            images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
            (-model.log_prob(images).mean()).backward()
            optimizer.step()
            ema.update(step)
        model = ema.ready() if mode == "average of weights" else model.eval()
    found = certify(model)
    assert len(found.lipschitz) == 3
    assert found.largest <= 0.7**3 * 1.005
    assert any(value > 0.1 for value in found.lipschitz.values())


def test_actnorm_is_outside_the_contraction() -> None:
    model = randomize(flowzoo.create("residual-tiny").double().eval(), 2)
    before = certify(model).largest
    for name, parameter in model.named_parameters():
        if name.endswith("log_scale"):
            parameter.data.add_(3.0)
    assert certify(model).largest == before


def test_lipswish_has_slopes_of_at_most_one() -> None:
    steepest = []
    for b in (-5.0, 0.0, 0.5, 3.0):
        x = torch.linspace(-10, 10, 20_001, dtype=torch.float64) / math.log1p(math.exp(b))
        (slope,) = torch.autograd.grad(LipSwish()(x.requires_grad_(), torch.tensor([b]).double()).sum(), x)
        steepest.append(float(slope.abs().max()))
    assert min(steepest) > 0.9
    assert max(steepest) <= 1.0


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("transposed", [False, True])
def test_convergence_takes_a_fraction_of_the_products_of_power_iterations(
    tolerance: float, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = SpectralConv2d(*((16, 4) if transposed else (4, 16)), 3, (14, 14), 0.9).double()
    assert layer.transposed == transposed
    weight, count, apply_weight = layer.weight.detach(), 0, layer.apply_weight
    maps = (layer.apply_weight, layer.apply_transpose)
    first, second = reversed(maps) if transposed else maps

    def counted(x: Tensor, weight: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return apply_weight(x, weight)

    monkeypatch.setattr(layer, "apply_weight", counted)
    vector, power = layer.vector.clone(), 0
    while power < 1000:
        again = second(first(vector[None], weight), weight)[0]
        square = (again * vector).sum()
        if torch.linalg.vector_norm(again - square * vector) <= tolerance * square:
            break
        vector, power = again / torch.linalg.vector_norm(again), power + 1
    count = 0
    layer._iterated(tolerance, 20_000, layer.vector, weight)
    assert 0 < 2 * count < power


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_maps_of_few_different_singular_values_exhaust_their_krylov_space(rank: int) -> None:
    torch.manual_seed(0)
    layer = SpectralLinear(12, 9, 0.9)
    left, right = (torch.linalg.qr(torch.randn(size, rank)).Q for size in (9, 12))
    with torch.no_grad():
        layer.weight.copy_(3 * left @ right.T)
    layer.converge()
    torch.testing.assert_close(layer.normalised(), 0.9 / 3 * layer.weight, rtol=1e-5, atol=1e-6)


def test_a_weight_of_zeros_stays_as_it_is() -> None:
    layer = SpectralLinear(12, 9, 0.9)
    torch.nn.init.zeros_(layer.weight)
    layer.converge()
    assert torch.equal(layer.normalised(), torch.zeros(9, 12))
    assert bool(torch.isfinite(layer.vector).all())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_stay_so_and_reach_no_eigenvalue_solver(value: float) -> None:
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 8, 3, (6, 6), 0.9).train()
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = value
    assert not bool(torch.isfinite(layer.normalised()).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_in_half_precision_find_their_norm_to_its_digits(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 8, 3, (6, 6), 0.9)
    with torch.no_grad():
        layer.weight.mul_(10)
    wanted = layer.eval().normalised()
    half = layer.to(dtype)
    half.converge()
    torch.testing.assert_close(half.normalised().float(), wanted, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_close_singular_values_do_not_hold_convergence_up(seed: int) -> None:
    torch.manual_seed(seed)
    layer = SpectralLinear(120, 90, 0.9).double()
    values = torch.cat((torch.tensor([1.0, 1 - 1e-6, 1 - 2e-6]), torch.linspace(0.99, 0.1, 87))).double()
    left, right = (torch.linalg.qr(torch.randn(size, 90).double()).Q for size in (90, 120))
    with torch.no_grad():
        layer.weight.copy_(left @ torch.diag(values) @ right.T)
    assert layer.certified_norm() == pytest.approx(0.9, rel=1e-5)
    vector = layer._iterated(1e-9, 400, layer.vector, layer.weight.detach())
    assert float(layer.image_of(vector, layer.weight.detach()).norm()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 5])
def test_exhausted_krylov_spaces_stay_finite_in_half_precision(rank: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = SpectralLinear(12, 9, 0.9)
    left, right = (torch.linalg.qr(torch.randn(size, rank)).Q for size in (9, 12))
    with torch.no_grad():
        layer.weight.copy_(3 * left @ right.T)
    half = layer.to(dtype)
    half.converge()
    wanted = 0.9 / 3 * half.weight.detach().float()
    torch.testing.assert_close(half.normalised().float(), wanted, rtol=0.05, atol=0.01)
