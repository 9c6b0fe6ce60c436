"""Layers of transformers: causality, cached keys and values, and derivatives of any order."""

from __future__ import annotations

import pytest
import torch

from flowzoo.errors import ConfigError
from flowzoo.nets.transformer import KeyValueCache, SelfAttention, TransformerLayer


def layer(*, causal: bool) -> TransformerLayer:
    torch.manual_seed(0)
    return TransformerLayer(8, 2, causal=causal, expansion=2).double()


@pytest.mark.parametrize("causal", [True, False])
def test_a_token_sees_what_it_may(causal: bool) -> None:
    x = torch.randn(5, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(causal=causal)(x[None])[0].sum(-1), x)
    sees = (jacobian != 0).any(-1)
    expected = torch.ones(5, 5).bool()
    assert torch.equal(sees, expected.tril() if causal else expected)


def test_token_after_token_with_a_cache_is_the_whole() -> None:
    causal, x = layer(causal=True), torch.randn(3, 6, 8, dtype=torch.float64)
    whole, cache = causal(x), KeyValueCache(3, 2, 6, 4, x)
    with torch.no_grad():
        parts = [causal(x[:, :1], 0, cache), causal(x[:, 1:4], 1, cache), causal(x[:, 4:], 4, cache)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_it_is_torchs_attention() -> None:
    torch.manual_seed(0)
    own, reference = SelfAttention(8, 2, causal=False), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(own.qkv.weight)
        reference.in_proj_bias.copy_(own.qkv.bias)
        reference.out_proj.load_state_dict(own.out.state_dict())
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(own(x), reference(x, x, x)[0])


def test_second_derivatives() -> None:
    causal = layer(causal=True)
    x = torch.randn(1, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: causal(x).square().sum(), (x,))


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 heads"):
        SelfAttention(8, 3, causal=True)
