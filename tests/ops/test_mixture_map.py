"""The mixture coupling's elementwise map as one operation: equal to its composition, in tails and valleys too."""

from __future__ import annotations

import pytest
import torch
from flowzoo.bijectors.affine import AffineOrder
from flowzoo.bijectors.mixture_map import mixture_inverse, mixture_map
from torch import Tensor

from flowzoo.bijectors import ChannelHalves, MixtureLogisticCoupling


def couplings_parameters(spread: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Elements and mixture parameters: near each other, far in the tails, or in valleys between components."""
    torch.manual_seed(3)
    x = torch.randn(6, 2, 3, 5, dtype=torch.float64) * spread
    parameters = torch.randn(6, (2 + 3 * 3) * 2, 3, 5, dtype=torch.float64) * 2
    parameters[:3, 10:16] *= spread
    # Below the bound of the log-scales.
    parameters[:, -1] -= 8
    return x.to(dtype), parameters.to(dtype)


@pytest.mark.parametrize("order", ["scale-shift", "shift-scale"])
@pytest.mark.parametrize("spread", [1.0, 30.0, 2000.0])
def test_the_fused_mixture_is_the_composed_one(order: AffineOrder, spread: float) -> None:
    coupling = MixtureLogisticCoupling(ChannelHalves(), torch.nn.Identity(), 2, 3, order=order)
    x, parameters = (t.requires_grad_() for t in couplings_parameters(spread))

    def composed() -> tuple[Tensor, Tensor]:
        log_scale, shift, mixture = coupling._unpack(parameters)
        y, log_slope = mixture.logit_cdf(x)
        scale = log_scale.exp()
        z = (y + shift) * scale if order == "shift-scale" else y * scale + shift
        return z, (log_slope + log_scale).flatten(1).sum(1)

    expected, found = composed(), mixture_map(x, parameters, 3, order)
    pulled = [torch.randn_like(t) for t in expected]
    for a, b in zip(
        (*expected, *torch.autograd.grad(expected, (x, parameters), pulled)),
        (*found, *torch.autograd.grad(found, (x, parameters), pulled)),
        strict=True,
    ):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11 * float(a.detach().abs().max()))
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(mixture_map(x, parameters, 3, order), found, strict=True)
        )


@pytest.mark.parametrize("spread", [1.0, 30.0, 2000.0])
def test_the_fused_mixture_keeps_its_digits_in_float32(spread: float) -> None:
    x, parameters = couplings_parameters(spread, torch.float32)
    found = mixture_map(x, parameters, 3, "scale-shift")
    expected = mixture_map(x.double(), parameters.double(), 3, "scale-shift")
    for a, b in zip(expected, found, strict=True):
        assert bool(((a - b).abs() <= 2e-5 * a.abs().clamp_min(1)).all())


def test_the_fused_mixture_takes_and_gives_back_what_is_narrower() -> None:
    x, parameters = couplings_parameters(1.0, torch.float32)
    narrow = parameters.bfloat16().requires_grad_()
    z, log_det = mixture_map(x, narrow, 3, "scale-shift")
    assert z.dtype == log_det.dtype == torch.float32
    (grad,) = torch.autograd.grad(z.sum() + log_det.sum(), narrow)
    assert grad.dtype == torch.bfloat16
    assert torch.equal(z, mixture_map(x, narrow.float(), 3, "scale-shift")[0])


@pytest.mark.parametrize("order", ["scale-shift", "shift-scale"])
def test_the_inverse_undoes_it(order: AffineOrder) -> None:
    x, parameters = couplings_parameters(1.0)
    z, log_det = mixture_map(x, parameters, 3, order)
    found, inverse_log_det = mixture_inverse(z, parameters, 3, order)
    torch.testing.assert_close(found, x, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", ["scale-shift", "shift-scale"])
def test_a_vectorized_jacobian_is_that_of_one_row_at_a_time(order: AffineOrder) -> None:
    x, parameters = couplings_parameters(1.0)
    x, parameters = x[:1], parameters[:1]
    one_by_one, at_once = (
        torch.autograd.functional.jacobian(
            lambda a, b: mixture_map(a, b, 3, order), (x, parameters), vectorize=vectorize
        )
        for vectorize in (False, True)
    )
    for a, b in zip(one_by_one, at_once, strict=True):
        for c, d in zip(a, b, strict=True):
            torch.testing.assert_close(d, c, rtol=1e-9, atol=1e-10)
