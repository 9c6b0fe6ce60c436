"""Convolutions as products of matrices, and settled networks: the same function by another way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.nets.kernels import Kernel
from flowzoo.nets.products import FEW_PIXELS, convolved_by_taps, is_product, is_thin, multiplied
from flowzoo.nets.rectified import rectified_convolutions
from flowzoo.nets.settled import settle

THIN, WIDE, SIZE = 3, 24, (12, 11)


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def network(dtype: torch.dtype = torch.float64) -> list[Kernel]:
    """Thin at both ends, with a convolution of single pixels between."""
    shapes = [(WIDE, THIN, 3, 3), (WIDE, WIDE, 1, 1), (THIN, WIDE, 3, 3)]
    return [
        Kernel(
            draw(*shape, seed=index, dtype=dtype).mul_(0.2),
            draw(shape[0], seed=9 + index, dtype=dtype),
            padding=shape[-1] // 2,
        )
        for index, shape in enumerate(shapes)
    ]


def plain(x: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    for index, kernel in enumerate(kernels):
        x = F.conv2d(x.relu() if index else x, kernel.weight, kernel.bias, padding=kernel.padding)
    return x


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (3, 4), (8, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_taps_add_up_to_the_convolution(size: tuple[int, int], layout: torch.memory_format) -> None:
    x, weight = draw(2, 5, *size, seed=0).contiguous(memory_format=layout), draw(3, 5, 3, 3, seed=1)
    expected = F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(convolved_by_taps(x, weight), expected, rtol=1e-12, atol=1e-12)


def test_a_convolution_of_single_pixels_is_a_product() -> None:
    x, weight, bias = draw(2, 5, 3, 4, seed=0), draw(3, 5, 1, 1, seed=1), draw(3, seed=2)
    torch.testing.assert_close(multiplied(x, weight, bias), F.conv2d(x, weight, bias), rtol=1e-12, atol=1e-12)


def test_networks_thin_at_their_ends_keep_value_and_gradients() -> None:
    kernels, x = network(), draw(4, THIN, *SIZE, seed=5).requires_grad_()
    # Both ways are taken, or this would test neither.
    assert is_thin(kernels[-1].weight, len(x), x.shape[2:])
    assert is_thin(kernels[0].weight.transpose(0, 1), len(x), x.shape[2:])
    leaves = [x, *(t.requires_grad_() for kernel in kernels for t in (kernel.weight, kernel.bias))]
    found, expected = (run(x, kernels) for run in (rectified_convolutions, plain))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    pairs = zip(*(torch.autograd.grad(out.sin().sum(), leaves) for out in (found, expected)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("changed", ["few pixels", "many outputs", "5x5", "bfloat16"])
def test_other_convolutions_are_left_to_torch(changed: str) -> None:
    weight, size = draw(8, 64, 3, 3, seed=0), torch.Size((16, 16))
    assert is_thin(weight, 2, size)
    other = {
        "few pixels": (weight, 1),
        "many outputs": (draw(9, 72, 3, 3, seed=0), 2),
        "5x5": (draw(8, 64, 5, 5, seed=0), 2),
        "bfloat16": (weight.bfloat16(), 2),
    }
    assert not is_thin(*other[changed], size)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@torch.no_grad()
def test_a_network_settled_for_one_batch_is_the_same_function_of_every_other(
    dtype: torch.dtype, tolerance: float
) -> None:
    kernels = network(dtype)
    for first in (1, 40):
        run = settle([kernel.packed(first, torch.Size(SIZE)) for kernel in kernels])
        for batch in (0, 1, 3, 40):
            x = draw(batch, THIN, *SIZE, seed=batch, dtype=dtype)
            torch.testing.assert_close(run(x), plain(x, kernels), rtol=tolerance, atol=tolerance)
    few, many = 3 * SIZE[0] * SIZE[1], 40 * SIZE[0] * SIZE[1]
    assert few <= FEW_PIXELS < many
    assert is_product(kernels[1].weight)
