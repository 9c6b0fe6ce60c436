from __future__ import annotations

import pytest
import torch

from flowzoo.bijectors import (
    AlternateColumns,
    ChannelHalves,
    Checkerboard,
    InterleavedFeatures,
    MaskedCheckerboard,
    Partition,
    Squeeze,
)
from flowzoo.errors import InputError

PARTITIONS: list[Partition] = [AlternateColumns(), ChannelHalves(), Checkerboard(), MaskedCheckerboard()]


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda p: type(p).__name__)
def test_merge_undoes_split_and_the_complement_swaps_the_halves(partition: Partition) -> None:
    x = torch.randn(2, 4, 6, 8)
    a, b = partition.split(x)
    assert torch.equal(partition.merge(a, b), x)
    assert all(torch.equal(p, q) for p, q in zip(partition.complement().split(x), (b, a), strict=True))
    assert partition.complement().complement() == partition


def test_an_odd_number_of_features_is_parted_too() -> None:
    x = torch.arange(7.0)[None]
    for partition in (InterleavedFeatures(), InterleavedFeatures(True), ChannelHalves(), ChannelHalves(True)):
        a, b = partition.split(x)
        assert a.shape[1] + b.shape[1] == 7
        assert torch.equal(partition.merge(a, b), x)


@pytest.mark.parametrize("second", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("first", [torch.float64, torch.float32, torch.bfloat16])
def test_interleaving_takes_every_dtype_and_has_the_gradient_of_its_halves(
    first: torch.dtype, second: torch.dtype
) -> None:
    a, b = torch.randn(2, 3, dtype=first).requires_grad_(), torch.randn(2, 3, dtype=second).requires_grad_()
    out = InterleavedFeatures().merge(a, b)
    assert torch.equal(out[:, 0::2], a)
    assert torch.equal(out[:, 1::2], b.to(first))
    weights = torch.arange(12, dtype=first).view(2, 6)
    grad_a, grad_b = torch.autograd.grad((out * weights).sum(), (a, b))
    assert torch.equal(grad_a, weights[:, 0::2])
    assert torch.equal(grad_b, weights[:, 1::2].to(second))


def test_packed_and_masked_checkerboard_hold_the_same_pixels() -> None:
    x = torch.randn(1, 2, 4, 6)
    packed, _ = Checkerboard().split(x)
    masked, _ = MaskedCheckerboard().split(x)
    assert torch.equal(packed.flatten().sort().values, masked[masked != 0].sort().values)
    rows, columns = masked[0, 0].nonzero(as_tuple=True)
    assert bool(((rows + columns) % 2 == 0).all())


def test_select_zeroes_the_conditioner_only() -> None:
    ones = torch.ones(1, 1, 4, 4)
    for partition in (MaskedCheckerboard(), MaskedCheckerboard(True)):
        selected = partition.select(ones)
        assert selected.sum() == 8
        assert torch.equal(partition.split(ones)[1], selected)


def test_odd_widths_are_refused() -> None:
    with pytest.raises(InputError, match="even width"):
        Checkerboard().split(torch.zeros(1, 1, 4, 5))


def test_checkerboard_squeeze_puts_one_colour_in_the_first_half() -> None:
    x = torch.randn(1, 3, 4, 4)
    z, _ = Squeeze("checkerboard")(x)
    first = ChannelHalves().split(z)[0]
    colour = MaskedCheckerboard().split(x)[0]
    assert torch.equal(first.flatten().sort().values, colour[colour != 0].sort().values)


def test_squeeze_orders_are_those_of_their_frameworks() -> None:
    x = torch.arange(2 * 4.0).view(1, 2, 2, 2)
    assert Squeeze("channel")(x)[0].flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert Squeeze("offset")(x)[0].flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert Squeeze("checkerboard")(x)[0].flatten().tolist() == [0, 4, 3, 7, 1, 5, 2, 6]
