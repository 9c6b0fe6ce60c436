"""Muon with Adam: orthogonal steps of matrices and kernels, Adam's own steps of everything else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowzoo.training.muon import MuonAdam, orthogonalize


@pytest.mark.parametrize("shape", [(32, 32), (16, 80), (80, 16)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    given = torch.randn(shape, dtype=torch.float64)
    found = orthogonalize(given)
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    inside = u.mT @ found @ v.mT
    values = inside.diagonal()
    assert found.shape == given.shape
    assert found.dtype == given.dtype
    assert values.min() > 0.6
    assert values.max() < 1.3
    torch.testing.assert_close(inside, torch.diag(values))


def test_no_gradient_is_no_step() -> None:
    assert torch.equal(orthogonalize(torch.zeros(16, 20)), torch.zeros(16, 20))


def test_rows_that_have_decayed_to_nothing_stay_and_cost_nothing() -> None:
    torch.manual_seed(0)
    given = torch.randn(32, 40)
    given[::2] *= 1e-39
    found = orthogonalize(given)
    assert torch.equal(found[::2], torch.zeros(16, 40))
    torch.testing.assert_close(found[1::2], orthogonalize(given[1::2].contiguous()))


def test_a_kernel_moves_as_the_matrix_of_its_outputs() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(48, 16, 3, 3), torch.randn(3, 48, 16, 3, 3)
    kernel, matrix = nn.Parameter(start.clone()), nn.Parameter(start.flatten(1).clone())
    for p, shape in ((kernel, kernel.shape), (matrix, matrix.shape)):
        optimizer = MuonAdam([p], lr=0.1)
        for gradient in gradients:
            p.grad = gradient.view(shape)
            optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix)
    moved = torch.linalg.svdvals(start.flatten(1) - matrix.detach())
    assert moved.max() < 3 * 0.1 * 1.3  # three steps of length at most 0.1 in each direction


def test_steps_follow_nesterovs_average_of_the_gradients() -> None:
    torch.manual_seed(0)
    p, gradients = nn.Parameter(torch.zeros(80, 20)), torch.randn(3, 80, 20)
    optimizer, average, expected = (
        MuonAdam([p], lr=0.1, momentum=0.6),
        torch.zeros(80, 20),
        torch.zeros(80, 20),
    )
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.step()
        average = 0.6 * average + 0.4 * gradient
        # Four times as many rows as columns: twice the step.
        expected -= 0.1 * 2 * orthogonalize(0.6 * average + 0.4 * gradient)
    torch.testing.assert_close(p.detach(), expected)


def test_the_scale_of_a_loss_changes_no_step_of_a_matrix() -> None:
    torch.manual_seed(0)
    gradient, found = torch.randn(20, 30), []
    for scale in (1.0, 1000.0):
        p = nn.Parameter(torch.zeros(20, 30))
        optimizer = MuonAdam([p])
        p.grad = scale * gradient
        optimizer.step()
        found.append(p.detach())
    torch.testing.assert_close(found[0], found[1])


def test_decay_shrinks_matrices() -> None:
    p = nn.Parameter(torch.ones(16, 16))
    optimizer = MuonAdam([p], lr=0.1, weight_decay=0.5)
    p.grad = torch.zeros(16, 16)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((16, 16), 0.95))


def test_the_rest_moves_as_by_adam() -> None:
    torch.manual_seed(0)
    shapes = [(), (5,), (15, 40), (64, 4, 1, 1)]
    starts = [torch.randn(shape) for shape in shapes]
    found = []
    for kind in ("mine", "adam"):
        gradients = torch.Generator().manual_seed(1)
        parameters = [nn.Parameter(start.clone()) for start in starts]
        optimizer: torch.optim.Optimizer = (
            MuonAdam(parameters, lr=0.05, adam_ratio=0.2, betas=(0.8, 0.95), eps=1e-6)
            if kind == "mine"
            else torch.optim.Adam(parameters, lr=0.01, betas=(0.8, 0.95), eps=1e-6)
        )
        for _ in range(4):
            for p in parameters:
                p.grad = torch.randn(p.shape, generator=gradients)
            optimizer.step()
        found.append([p.detach() for p in parameters])
    torch.testing.assert_close(found[0], found[1])


def test_a_closure_is_evaluated_with_gradients() -> None:
    p = nn.Parameter(torch.ones(16, 16))
    optimizer = MuonAdam([p])

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 256
    assert not torch.equal(p.detach(), torch.ones(16, 16))
