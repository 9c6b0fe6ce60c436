"""The elementwise part of a mixture coupling as one operation.

As a composition of operations it is some sixty passes over K times the activations, most of them to find in the
backward pass numbers that follow from a few terms of the forward one. Everything here is channel-major,
``(K, C, B, H, W)`` with the components first, so that each group of parameters is one block
and a sum over components is one of blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.ops.affine import AffineOrder, Plain
from flowzoo.ops.autograd import apply, in_forward_dtypes, needs_plain, plain_backward
from flowzoo.ops.mixture_roots import TINY, roots

MIN_LOG_SCALE = -7.0


def mixture_map(
    x: Tensor, parameters: Tensor, count: int, order: AffineOrder, plain: Plain
) -> tuple[Tensor, Tensor]:
    """Maps x to logit(F(x)) s + t or (logit(F(x)) + t) s with s = exp(tanh(r)), and sums the log-derivatives.

    Args:
        x: ``(B, C, ...)``.
        parameters: ``(B, (2 + 3 K) C, ...)`` in the dtype of ``x`` or a narrower one: r, t, logits, means and
            log-scales, the C channels of each side by side.
        count: K.
        order: ``"scale-shift"`` or ``"shift-scale"``, as above.
        plain: The same map by torch's own operations.

    Returns:
        The mapped x, channel-major, and the log-determinant ``(B,)``.
    """
    if not torch.is_grad_enabled():
        z, log_det, _, _ = _map(_blocks(x, 1)[0], _blocks(parameters, 2 + 3 * count, x.dtype), count, order)
    else:
        z, log_det = apply(_MixtureMap, x, parameters, count, order, plain)
    return z, log_det


def mixture_inverse(z: Tensor, parameters: Tensor, count: int, order: AffineOrder) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`mixture_map` and the log-determinant of that direction; outside autograd."""
    z, raw = _blocks(z, 1)[0], _blocks(parameters, 2 + 3 * count, z.dtype)
    log_scale, shift = torch.tanh(raw[0]), raw[1]
    scale = torch.exp(-log_scale)
    y = (z * scale).sub_(shift) if order == "shift-scale" else (z - shift).mul_(scale)
    weights, rates = _weights_and_rates(raw[2:], count)
    means = raw[2 + count : 2 + 2 * count]
    x = roots(weights.flatten(1), means.flatten(1), rates.flatten(1), y.flatten()).view_as(y)
    sums = _sums(x, raw[2:], count, weights, rates)
    log_derivative = (sums.log_cdf - sums.log_pdf).add_(sums.log_sf).sub_(log_scale)
    return x.transpose(0, 1), log_derivative.transpose(0, 1).flatten(1).sum(1)


class _Sums(NamedTuple):
    """log F, log(1 - F) and log f, ``(C, B, ...)``, and whether their terms were added up as logarithms."""

    log_cdf: Tensor
    log_sf: Tensor
    log_pdf: Tensor
    in_log_space: bool


class _MixtureMap(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, parameters: Tensor, count: int, order: AffineOrder, plain: Plain
    ) -> tuple[Tensor, Tensor]:
        block, raw = _blocks(x, 1)[0], _blocks(parameters, 2 + 3 * count, x.dtype)
        z, log_det, y, sums = _map(block, raw, count, order)
        ctx.save_for_backward(x, parameters, block, raw, y, *sums[:-1])
        ctx.count, ctx.order, ctx.in_log_space, ctx.plain = count, order, sums.in_log_space, plain
        return z, log_det

    @staticmethod
    @in_forward_dtypes
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        given, parameters, x, raw, y, log_cdf, log_sf, log_pdf = ctx.saved_tensors
        if needs_plain((grad_z, grad_log_det)):
            gradients = (grad_z, grad_log_det)
            found = plain_backward(ctx.plain, (given, parameters), gradients, ctx.needs_input_grad[:2])
            return *found, None, None, None
        sums = _Sums(log_cdf, log_sf, log_pdf, ctx.in_log_space)
        grad_z, grad_log_det = _blocks(grad_z, 1)[0], grad_log_det.view(-1, *(1,) * (x.ndim - 2))
        grad_raw = torch.empty_like(raw)
        grad_y = _affine_backward(raw, y, grad_z, grad_log_det, ctx.order, grad_raw)
        grad_x = _mixture_backward(x, raw, sums, grad_y, grad_log_det, ctx.count, grad_raw)
        # Made for the network, which has the channels of a pixel side by side.
        rows = grad_raw.flatten(0, 1).movedim(0, -1)
        grad = rows.to(parameters.dtype, memory_format=torch.contiguous_format).contiguous().movedim(-1, 1)
        return grad_x.transpose(0, 1), grad, None, None, None


def _blocks(x: Tensor, groups: int, dtype: torch.dtype | None = None) -> Tensor:
    """``(B, G C, ...)`` as ``(G, C, B, ...)``, contiguous."""
    block = x.transpose(0, 1).to(dtype or x.dtype, memory_format=torch.contiguous_format)
    return block.contiguous().view(groups, -1, *block.shape[1:])


def _map(x: Tensor, raw: Tensor, count: int, order: AffineOrder) -> tuple[Tensor, Tensor, Tensor, _Sums]:
    """The mapped x, the log-determinant, y = logit F(x), and its sums."""
    log_scale, shift = torch.tanh(raw[0]), raw[1]
    sums = _sums(x, raw[2:], count, *_weights_and_rates(raw[2:], count))
    y = sums.log_cdf - sums.log_sf
    log_derivative = (sums.log_pdf - sums.log_cdf).sub_(sums.log_sf).add_(log_scale)
    scale = log_scale.exp_()
    z = (y + shift).mul_(scale) if order == "shift-scale" else torch.addcmul(shift, y, scale)
    return z.transpose(0, 1), log_derivative.transpose(0, 1).flatten(1).sum(1), y, sums


def _sums(x: Tensor, raw: Tensor, count: int, weights: Tensor, rates: Tensor) -> _Sums:
    """Sums of sigmoids keep as many digits as those of their logarithms unless something underflows, and cost less.

    Whether something does is known only once it is computed, which a GPU had better not be asked for.
    """
    u = (x - raw[count : 2 * count]).mul_(rates)
    if x.device.type == "cpu":
        left, right = torch.sigmoid(u).mul_(weights), torch.sigmoid(-u)
        cdf = left.sum(0)
        pdf = left.mul_(right).mul_(rates).sum(0)
        sf = right.mul_(weights).sum(0)
        # Between far components F and 1 - F are large, and only the density underflows.
        if x.numel() and bool(torch.minimum(torch.minimum(cdf, sf), pdf).min() > TINY):
            return _Sums(cdf.log_(), sf.log_(), pdf.log_(), in_log_space=False)
    log_cdf, log_sf, log_pdf = (torch.logsumexp(logs, dim=0) for logs in _log_terms(u, raw, count))
    return _Sums(log_cdf, log_sf, log_pdf, in_log_space=True)


def _weights_and_rates(raw: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The components' weights and inverse scales, ``(K, ...)``."""
    logits, _, log_scales = raw.split(count)
    # torch's own softmax is slow over a dimension that is not the last.
    weights = (logits - logits.amax(0)).exp_()
    weights.div_(weights.sum(0))
    return weights, log_scales.clamp_min(MIN_LOG_SCALE).neg_().exp_()


def _log_terms(u: Tensor, raw: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of each component's term in F, in 1 - F and in f."""
    logits, _, log_scales = raw.split(count)
    log_weights = F.log_softmax(logits, dim=0)
    log_right = F.logsigmoid(-u)
    in_cdf = F.logsigmoid(u).add_(log_weights)
    in_pdf = (in_cdf + log_right).sub_(log_scales.clamp_min(MIN_LOG_SCALE))
    return in_cdf, log_right.add_(log_weights), in_pdf


def _affine_backward(
    raw: Tensor, y: Tensor, grad_z: Tensor, grad_log_det: Tensor, order: AffineOrder, grad_raw: Tensor
) -> Tensor:
    """Writes the gradients at r and t and returns that at y."""
    log_scale = torch.tanh(raw[0])
    grad_y = grad_z * log_scale.exp()
    if order == "shift-scale":
        grad_raw[1] = grad_y
        grad_log_scale = grad_y * (y + raw[1])
    else:
        grad_raw[1] = grad_z
        grad_log_scale = grad_y * y
    # d tanh(r) / dr = 1 - tanh(r)^2
    grad_log_scale.add_(grad_log_det)
    torch.addcmul(grad_log_scale, grad_log_scale, log_scale.square_(), value=-1, out=grad_raw[0])
    return grad_y


def _mixture_backward(
    x: Tensor,
    raw: Tensor,
    sums: _Sums,
    grad_y: Tensor,
    grad_log_det: Tensor,
    count: int,
    grad_raw: Tensor,
) -> Tensor:
    """Writes the gradients at logits, means and log-scales and returns that at x.

    y = log F - log S and log dy/dx = log f - log F - log S with S = 1 - F. A component's share of a sum is the
    derivative of its logarithm for that of the component's term.
    """
    raw, (grad_logits, grad_means, grad_log_scales) = raw[2:], grad_raw[2:].split(count)
    weights, rates = _weights_and_rates(raw, count)
    u = (x - raw[count : 2 * count]).mul_(rates)
    left, right = torch.sigmoid(u), torch.sigmoid(-u)
    if sums.in_log_space:
        logs = zip(_log_terms(u, raw, count), sums[:-1], strict=True)
        in_cdf, in_sf, in_pdf = (term.sub_(log_sum).exp_() for term, log_sum in logs)
    else:
        in_cdf = weights * left
        in_pdf = (in_cdf * right).mul_(rates).mul_(torch.exp(-sums.log_pdf))
        in_cdf.mul_(torch.exp(-sums.log_cdf))
        in_sf = (weights * right).mul_(torch.exp(-sums.log_sf))
    in_cdf.mul_(grad_y - grad_log_det)
    in_sf.mul_(-grad_y - grad_log_det)
    in_pdf.mul_(grad_log_det)
    # The gradients at the terms' log-weights sum to -grad_log_det; a softmax takes its weight of that from each.
    torch.add(in_cdf, in_sf, out=grad_logits).add_(in_pdf).addcmul_(weights, grad_log_det)
    # d log sigmoid(u) = sigmoid(-u) du, d log sigmoid(-u) = -sigmoid(u) du
    grad_u = in_cdf.mul_(right).sub_(in_sf.mul_(left)).addcmul_(in_pdf, right.sub_(left))
    torch.addcmul(in_pdf, grad_u, u, out=grad_log_scales).neg_()
    # Nothing moves a log-scale that is held at its bound.
    torch.ops.aten.threshold_backward.grad_input(
        grad_log_scales, raw[2 * count :], MIN_LOG_SCALE, grad_input=grad_log_scales
    )
    torch.mul(grad_u, rates, out=grad_means).neg_()
    grad_x: Tensor = grad_means.sum(0).neg_()
    return grad_x
