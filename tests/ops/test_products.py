"""Convolutions as products of matrices, and specialised networks: the same function by another way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.ops.conv_stack import convolutions
from flowzoo.ops.frozen_stack import specialise
from flowzoo.ops.kernels import Kernel, outside_taps
from flowzoo.ops.products import FEW_PIXELS, convolved_by_taps, is_product, is_thin, multiplied

THIN, WIDE, SIZE = 3, 32, (12, 11)


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
    found = multiplied(x, weight.flatten(1).t(), bias)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias), rtol=1e-12, atol=1e-12)


def test_networks_thin_at_their_ends_keep_value_and_gradients() -> None:
    kernels, x = network(), draw(4, THIN, *SIZE, seed=5).requires_grad_()
    # Both ways are taken, or this would test neither.
    assert is_thin(kernels[-1].weight, len(x), x.shape[2:])
    assert is_thin(kernels[0].weight.transpose(0, 1), len(x), x.shape[2:])
    leaves = [x, *(t.requires_grad_() for kernel in kernels for t in (kernel.weight, kernel.bias))]
    found, expected = (convolutions(x, kernels, x.dtype), plain(x, kernels))
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
def test_a_network_specialised_for_one_batch_is_the_same_function_of_every_other(
    dtype: torch.dtype, tolerance: float
) -> None:
    kernels = network(dtype)
    for first in (1, 40):
        run = specialise([kernel.packed(first, torch.Size(SIZE)) for kernel in kernels])
        for batch in (0, 1, 3, 40):
            x = draw(batch, THIN, *SIZE, seed=batch, dtype=dtype)
            torch.testing.assert_close(run(x), plain(x, kernels), rtol=tolerance, atol=tolerance)
    few, many = 3 * SIZE[0] * SIZE[1], 40 * SIZE[0] * SIZE[1]
    assert few <= FEW_PIXELS < many
    assert is_product(kernels[1].weight)


def stack(inputs: int, outputs: int, width: int) -> list[Kernel]:
    shapes = [(width, inputs, 3, 3), (width, width, 1, 1), (outputs, width, 3, 3)]
    return [
        Kernel(
            draw(*shape, seed=i, dtype=torch.float32).mul_(0.1),
            draw(shape[0], seed=7 + i, dtype=torch.float32),
            padding=shape[-1] // 2,
        )
        for i, shape in enumerate(shapes)
    ]


def packed(kernels: Sequence[Kernel], x: Tensor) -> list[Kernel]:
    return [kernel.packed(len(x), x.shape[2:]) for kernel in kernels]


@torch.no_grad()
def test_a_nan_in_the_input_stays_visible() -> None:
    kernels, x = stack(66, 6, 64), draw(40, 66, 8, 8, seed=1, dtype=torch.float32)
    run = specialise(packed(kernels, x))
    assert bool(run(x).isfinite().all())
    x[:, 64] = torch.nan
    assert not bool(run(x).isfinite().any())


@torch.no_grad()
@pytest.mark.parametrize("part", ["weight", "bias", "edge"])
def test_a_broken_kernel_gives_no_finite_numbers(part: str) -> None:
    kernels, x = stack(64, 6, 64), draw(40, 64, 8, 8, seed=1, dtype=torch.float32)
    edge = torch.zeros(64, 9)
    outside = outside_taps(x.shape[2:], 3, x.dtype, x.device)
    kernels[0] = kernels[0]._replace(edge=edge, outside=outside)
    getattr(kernels[0], part)[:] = torch.nan
    laid_out = packed(kernels, x)
    # The convolution behind the broken one could take a ReLU in.
    assert laid_out[1].weight.is_mkldnn
    assert not bool(specialise(laid_out, input_is_kept=True)(x)[:, :, 0].isfinite().any())


@torch.no_grad()
def test_kernels_are_packed_for_one_image_and_for_many() -> None:
    kernels, x = stack(64, 64, 64), draw(64, 64, 4, 4, seed=1, dtype=torch.float32)
    for images in (x[:1], x):
        run = specialise(packed(kernels, images))
        for given in (x[:1], x[:7], x):
            torch.testing.assert_close(run(given), plain(given, kernels), rtol=1e-4, atol=1e-4)
    assert any(kernel.weight.is_mkldnn for kernel in packed(kernels, x))
    assert not any(kernel.weight.is_mkldnn for kernel in packed(kernels, x[:1]))


def test_the_result_of_taps_holds_no_more_memory_than_its_own() -> None:
    out = convolved_by_taps(draw(2, 5, 8, 8, seed=0), draw(3, 5, 3, 3, seed=1))
    assert out.untyped_storage().nbytes() == out.numel() * out.element_size()
