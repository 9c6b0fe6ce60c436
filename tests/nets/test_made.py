"""MADE: outputs see exactly the values before theirs, and value by value it is the same network."""

from __future__ import annotations

import pytest
import torch

from flowzoo.nets.made import MADE, Incremental, MaskedLinear


def random_made(dims: int, hidden: tuple[int, ...], parameters: int, seed: int = 0) -> MADE:
    torch.manual_seed(seed)
    made = MADE(torch.randperm(dims) + 1, hidden, parameters, "tanh").double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("hidden", [(7,), (12, 5), (3, 30, 9)])
@pytest.mark.parametrize("dims", [1, 2, 6])
def test_each_output_sees_exactly_the_values_before_it(dims: int, hidden: tuple[int, ...]) -> None:
    made = random_made(dims, hidden, 2)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: made(x[None])[0].sum(-1), torch.randn(dims).double()
    )
    sees = jacobian != 0
    before = made.degrees[:, None] > made.degrees[None, :]
    assert not (sees & ~before).any()
    if min(hidden) >= dims - 1:
        assert torch.equal(sees, before)


def test_masks_of_several_layers_multiply_to_the_order() -> None:
    made = random_made(5, (20, 20), 1)
    masks = [layer.mask.double() for layer in (*made.hidden, made.out) if isinstance(layer, MaskedLinear)]
    paths = masks[2] @ masks[1] @ masks[0]
    assert torch.equal(paths > 0, made.degrees[:, None] > made.degrees[None, :])


@pytest.mark.parametrize("bound", [None, 0.5])
@pytest.mark.parametrize("hidden", [(9,), (9, 14), (2, 2)])
def test_the_incremental_evaluation_is_the_networks(hidden: tuple[int, ...], bound: float | None) -> None:
    made, x = random_made(6, hidden, 3), torch.randn(4, 6, dtype=torch.float64)
    made.input_bound = bound
    whole, state = made(x), Incremental(made, 4)
    for place, value in enumerate(made.order.tolist()):
        torch.testing.assert_close(state.parameters(place), whole[:, value])
        state.add(place, x[:, value])
