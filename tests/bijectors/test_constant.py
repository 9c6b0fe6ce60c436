"""Matrices as constants: the same map, and a way to formats that know no inverse of a matrix."""

from __future__ import annotations

import pytest
import torch

import flowzoo
from flowzoo.bijectors import ConstantConv1x1, InvertibleConv1x1, InvertibleConv1x1LU, with_constant_matrices
from flowzoo.errors import InputError
from flowzoo.ops.linalg import exporting_to_onnx
from flowzoo.testing import random_images, randomize


@pytest.mark.parametrize("permutation", ["dense", "lu"])
def test_a_flow_with_constants_computes_the_same_and_does_not_follow_its_weights(permutation: str) -> None:
    flow = randomize(flowzoo.create("glow-tiny", permutation=permutation).double(), seed=1).eval()
    x = random_images(flow, 3, seed=0)
    noise = flow.draw_noise(3)
    constant = with_constant_matrices(flow)
    expected, z = flow.log_prob(x, noise=noise), flow.encode(x)
    with torch.no_grad():
        for module in flow.modules():
            if isinstance(module, InvertibleConv1x1):
                module.reset_matrix(2 * module.matrix())
    assert not torch.equal(flow.log_prob(x, noise=noise), expected)
    layers = [m for m in constant.modules() if isinstance(m, InvertibleConv1x1)]
    assert layers
    assert {type(m) for m in layers} == {ConstantConv1x1}
    torch.testing.assert_close(constant.log_prob(x, noise=noise), expected)
    assert torch.equal(constant.decode(z), x)


@pytest.mark.parametrize("kind", [InvertibleConv1x1, InvertibleConv1x1LU])
def test_export_to_onnx_is_refused_in_one_line_unless_matrices_are_constants(
    kind: type[InvertibleConv1x1], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = kind(3), torch.randn(2, 3, 2, 2)
    assert not exporting_to_onnx()
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert exporting_to_onnx()
    constant = with_constant_matrices(layer)
    assert torch.allclose(constant.inverse(constant(x)[0])[0], x, atol=1e-5)
    with pytest.raises(InputError, match="with_constant_matrices"):
        layer.inverse(x)
