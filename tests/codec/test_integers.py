"""Integer networks, tables and mixtures: exact in any order, true to their float counterparts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flowzoo.codec import IntegerConv, IntegerMixture, IntegerNetwork
from flowzoo.codec.mixtures import Interval
from flowzoo.codec.tables import exponentials, logistic
from flowzoo.errors import ConfigError


def network(seed: int = 0) -> tuple[IntegerNetwork, list[nn.Conv2d]]:
    torch.manual_seed(seed)
    convolutions = [nn.Conv2d(2, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 7, 1)]
    return IntegerNetwork(convolutions, input_limit=4, activation_limit=32), convolutions


def inputs(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(4 << 16), (4 << 16) + 1, (count, 2, 6, 6), generator=generator)


def in_another_order(weight: Tensor, columns: Tensor) -> Tensor:
    """The product, its terms added one after the other in a shuffled order."""
    order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(5))
    total = torch.zeros(len(columns), len(weight), columns.shape[2], dtype=torch.float64)
    for term in order.tolist():
        total += weight[:, term, None] * columns[:, term, None]
    return total


def test_a_network_is_the_float_networks_rounding() -> None:
    net, convolutions = network()
    x = inputs(3)
    expected = x.double() / 2**16
    for conv in convolutions[:-1]:
        expected = conv.double()(expected).clamp(0, 32)
    expected = convolutions[-1].double()(expected)
    assert (net(x, 2).double() / 2**16 - expected).abs().max() < 1e-3


def test_a_networks_result_is_the_same_in_any_order_batch_layout_and_thread_count() -> None:
    net, _ = network(1)
    x = inputs(9)
    expected = net(x, 9)
    assert expected.abs().max() > 2**14
    for batch_size in (1, 4, 64):
        assert torch.equal(net(x, batch_size), expected)
    assert torch.equal(net(x.contiguous(memory_format=torch.channels_last), 9), expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(net(x, 9), expected)
    finally:
        torch.set_num_threads(threads)
    net.matmul = in_another_order
    assert torch.equal(net(x, 9), expected)


def test_a_float32_product_would_not_be_exact() -> None:
    """The operands are wide enough that the order matters where numbers are narrower: the test above can fail."""
    net, _ = network(1)
    x = inputs(9)
    expected = net(x, 9)
    net.matmul = lambda weight, columns: (weight.float() @ columns.float()).double()
    assert not torch.equal(net(x, 9), expected)


@pytest.mark.parametrize("weight", [1e12, math.nan, math.inf])
def test_a_network_whose_sums_would_not_be_exact_is_refused(weight: float) -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        conv.weight[0, 0, 1, 1] = weight
    with pytest.raises(ConfigError, match=r"2\^53"):
        IntegerConv(conv, 32 << 16)


def test_the_tables_are_the_functions() -> None:
    t = torch.arange(-(20 << 20), 20 << 20, 12345)
    found = logistic(t).double() / 2**24
    assert (found - torch.sigmoid(t.double() / 2**20)).abs().max() < 1e-6
    assert bool((logistic(t).diff() >= 0).all())
    assert torch.equal(logistic(t) + logistic(-t), torch.full_like(t, 2**24))
    x = torch.arange(-4 * 256, 6 * 256 + 1).double() / 256
    assert (exponentials(-4, 6, 20).double() / 2**20 - torch.exp(-x)).abs().max() <= 2**-21


def test_the_tables_are_those_that_files_were_written_with() -> None:
    """Another entry anywhere would make every older file unreadable."""
    found = logistic(torch.tensor([0, 1 << 20, 3 << 20, 7 << 20, 15 << 20]))
    assert found.tolist() == [8388608, 12265128, 15981542, 16761931, 16777211]
    assert exponentials(0, 16, 24)[[0, 1, 256, 2560, 4096]].tolist() == [16777216, 16711808, 6171993, 762, 2]


def mixture(raw: Tensor, window_bits: int = 8) -> IntegerMixture:
    return IntegerMixture(raw, 3, window_bits, len(raw))


def raw_parameters(seed: int, size: int = 40) -> Tensor:
    """Parameters of 3 logistics, wild ones among them."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([1.0, 4.0, 100.0])[torch.randint(3, (1, 9, 1, size), generator=generator)]
    return (torch.randn(1, 9, 1, size, generator=generator) * spread * 2**16).to(torch.int64)


def bits(distribution: IntegerMixture, symbols: Tensor) -> Tensor:
    """-log2 of the probability of each symbol."""
    found: Interval | Tensor = distribution.start()
    total = torch.zeros(symbols.shape, dtype=torch.float64)
    while isinstance(found, Interval):
        upper = symbols >= found.low + found.width // 2
        p = found.upper_half()
        total += 20 - torch.log2(torch.where(upper, p, 2**20 - p).double())
        found = found.choose(upper)
    assert torch.equal(found, symbols)
    return total


@pytest.mark.parametrize("window_bits", [1, 3, 8])
def test_a_mixtures_probabilities_sum_to_one(window_bits: int) -> None:
    raw = raw_parameters(0)
    total = torch.zeros(1, 1, 1, raw.shape[3], dtype=torch.float64)
    for symbol in range(2**window_bits):
        distribution = mixture(raw, window_bits)
        cost = bits(distribution, torch.full(distribution.shape, symbol))
        assert cost.max() < 20 * window_bits
        total += 2.0**-cost
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)


def test_a_mixture_is_the_one_that_its_parameters_describe() -> None:
    generator = torch.Generator().manual_seed(2)
    raw = (torch.randn(1, 9, 1, 60, generator=generator) * 2**16).to(torch.int64)
    raw[:, 3:6] += 2 << 16
    symbols = torch.randint(0, 256, (1, 1, 1, 60), generator=generator)
    logits, means, scales = (raw.double() / 2**16).view(3, 3, 60)
    s = 32 * torch.exp(scales)
    k = symbols.view(60).double()
    low = torch.where(k == 0, 0.0, torch.sigmoid((k - 64 * means) / s))
    high = torch.where(k == 255, 1.0, torch.sigmoid((k + 1 - 64 * means) / s))
    p = (torch.softmax(logits, 0) * (high - low)).sum(0) * (1 - 2**-16) + 2**-16 / 256
    torch.testing.assert_close(bits(mixture(raw), symbols).view(60), -torch.log2(p), rtol=0, atol=0.05)
