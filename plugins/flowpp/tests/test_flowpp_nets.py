"""Properties of the blocks that Flow++'s networks are made of."""

from __future__ import annotations

import pytest
import torch
from flowzoo_flowpp.networks import conv_network

from flowzoo.errors import ConfigError
from flowzoo.nets.attention import GatedAttention, PositionEmbedding
from flowzoo.nets.gated import ChannelLayerNorm, GatedConv, ScaledConv2d, concat_elu, gate


def features(channels: int = 8, height: int = 5, width: int = 4, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)


def test_concat_elu_keeps_both_signs() -> None:
    x = features()
    positive, negative = concat_elu(x).chunk(2, dim=1)
    torch.testing.assert_close(positive.clamp_min(0) - negative.clamp_min(0), x)


def test_an_open_gate_passes_and_a_shut_gate_stops() -> None:
    a = features()
    torch.testing.assert_close(gate(torch.cat([a, torch.full_like(a, 60)], dim=1)), a)
    assert gate(torch.cat([a, torch.full_like(a, -60)], dim=1)).abs().max() < 1e-20


def test_layer_norm_makes_every_pixel_standard() -> None:
    x = 5 + 3 * features(channels=16)
    y = ChannelLayerNorm(16).double()(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y.mean(dim=1), torch.zeros_like(y[:, 0]), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.var(dim=1, correction=0), torch.ones_like(y[:, 0]), atol=1e-4, rtol=0)


def test_layer_norm_keeps_channels_last_memory() -> None:
    y = ChannelLayerNorm(8).double()(features().contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("weight_norm", [False, True])
def test_data_dependent_initialization_sets_mean_and_scale_once(weight_norm: bool) -> None:
    conv = ScaledConv2d(8, 6, 3, weight_norm=weight_norm, init_scale=0.3).double()
    conv.initializing = True
    y = conv(4 + 2 * features(batch=20))
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(6, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        y.std(dim=(0, 2, 3), correction=0), torch.full((6,), 0.3, dtype=torch.float64), atol=1e-6, rtol=0
    )
    before = {name: value.clone() for name, value in conv.state_dict().items()}
    conv(features())
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())


def test_a_weight_normalized_kernel_has_the_length_of_its_gain() -> None:
    conv = ScaledConv2d(4, 6, 3, weight_norm=True)
    assert conv.gain is not None
    with torch.no_grad():
        conv.gain.copy_(torch.arange(1.0, 7.0))
    torch.testing.assert_close(conv.kernel().flatten(1).norm(dim=1), conv.gain.detach())


def permute_pixels(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return x.flatten(2)[..., order].reshape(x.shape)


def test_attention_without_positions_commutes_with_permutations() -> None:
    attention, x = GatedAttention(8, heads=2).double(), features()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(attention(permute_pixels(x, order)), permute_pixels(attention(x), order))


def test_attention_with_positions_does_not() -> None:
    attention, x = GatedAttention(8, heads=2).double(), features()
    position = 50 * PositionEmbedding(8, 5, 4).double()()
    order = torch.arange(19, -1, -1)
    moved = attention(permute_pixels(x, order), position)
    assert (moved - permute_pixels(attention(x, position), order)).abs().max() > 1e-4


def test_attention_reaches_every_pixel() -> None:
    attention, x = GatedAttention(8, heads=4).double(), features().requires_grad_()
    update = attention(x) - x
    (gradient,) = torch.autograd.grad(update[0, :, 0, 0].sum(), x)
    assert bool((gradient[0].abs().sum(dim=0) > 0).all())
    assert not gradient[1:].any()


def test_attention_refuses_heads_that_do_not_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match="8 channels cannot be shared among 3 heads"):
        GatedAttention(8, heads=3)


def test_gated_convolution_sees_its_context() -> None:
    block, x = GatedConv(8, context_channels=3).double(), features()
    context = features(channels=3)
    assert (block(x, context) - block(x, -context)).abs().max() > 1e-4


def test_dropout_acts_in_training_and_not_in_eval() -> None:
    x = features()
    for block in (GatedConv(8, dropout=0.5).double(), GatedAttention(8, 2, dropout=0.5).double()):
        block.train()
        assert not torch.equal(block(x), block(x))
        block.eval()
        assert torch.equal(block(x), block(x))


def test_dropout_alone_in_training_mode_drops_and_a_plain_network_is_its_layers() -> None:
    torch.manual_seed(0)
    net = conv_network(2, 6, filters=8, dropout=0.5).eval()
    x = torch.randn(2, 2, 6, 6)
    layers = net.conv_out(net.conv_hidden(net.conv_in(x).relu()).relu())
    torch.testing.assert_close(net(x), layers)
    net.dropout.train()
    assert not torch.equal(net(x), net(x))
