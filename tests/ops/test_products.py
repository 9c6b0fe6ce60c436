"""Convolutions as products of matrices, and settled networks: the same function by another way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from flowzoo.nets.kernels import Kernel
from flowzoo.nets.products import FEW_PIXELS, convolved_by_taps, is_product, is_thin, multiplied
from flowzoo.nets.rectified import rectified_convolutions
from flowzoo.nets.settled import settle
from torch import Tensor

from flowzoo.nets.conv import ActNormConv2d, ConvNet

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


@torch.no_grad()
def test_a_broken_context_gives_no_finite_numbers_in_evaluation_either() -> None:
    net = randomized(ConvNet(64, 6, 64, context_channels=2)).eval()
    x, context = draw(40, 64, 8, 8, seed=1, dtype=torch.float32), torch.zeros(40, 2, 8, 8)
    assert bool(net(x, context).isfinite().all())
    context[:, 0] = torch.nan
    assert not bool(net(x, context).isfinite().any())


@torch.no_grad()
@pytest.mark.parametrize("part", ["weight", "bias", "edge_weight"])
def test_a_broken_kernel_gives_no_finite_numbers_in_a_coupling(part: str) -> None:
    net = randomized(ConvNet(64, 6, 64, edge_bias=True)).eval()
    x = draw(40, 64, 8, 8, seed=1, dtype=torch.float32)
    owner = net.first if part == "bias" else net.first.conv
    getattr(owner, part)[:] = torch.nan
    kernels = net.kernels(x, x.dtype)
    assert kernels is not None
    # The convolution behind the broken one could take a ReLU in.
    assert kernels[1].weight.is_mkldnn
    assert not bool(settle(kernels, input_is_kept=True)(x)[:, :, 0].isfinite().any())


@torch.no_grad()
def test_what_one_image_was_evaluated_with_does_not_slow_down_many() -> None:
    net = randomized(ConvNet(64, 64, 64)).eval()
    x = draw(64, 64, 4, 4, seed=1, dtype=torch.float32)
    packed = [kernel.weight.is_mkldnn for kernel in net.kernels(x, x.dtype) or ()]
    net.forget()
    one = [kernel.weight.is_mkldnn for kernel in net.kernels(x[:1], x.dtype) or ()]
    assert [kernel.weight.is_mkldnn for kernel in net.kernels(x, x.dtype) or ()] == packed != one


def test_the_result_of_taps_holds_no_more_memory_than_its_own() -> None:
    out = convolved_by_taps(draw(2, 5, 8, 8, seed=0), draw(3, 5, 3, 3, seed=1))
    assert out.untyped_storage().nbytes() == out.numel() * out.element_size()


def randomized(net: ConvNet) -> ConvNet:
    torch.manual_seed(0)
    for parameter in net.parameters():
        parameter.data.normal_(std=0.1)
    for layer in (net.first, net.second):
        if isinstance(layer, ActNormConv2d):
            layer.mark_initialized()
    return net
