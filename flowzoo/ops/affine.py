"""The elementwise part of an affine coupling as one operation.

As a composition it is a pass over the activations for each of its operations, forwards and backwards, and keeps most
of what it computes. Here two tensors are kept, from which every derivative follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from flowzoo.ops.autograd import apply, in_forward_dtypes, needs_plain, plain_backward
from flowzoo.ops.kernels import Kernel
from flowzoo.ops.scales import OFFSETS, scale_backward, scale_into

AffineOrder = Literal["shift-scale", "scale-shift"]
ParameterLayout = Literal["halves", "interleaved"]

Plain = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""The same map by torch's own operations: (x, parameters) to (z, log_det)."""


def shift_and_raw(parameters: Tensor, layout: ParameterLayout, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Views of a network's output as shifts and raw log-scales: ``2 C`` channels, in dimension ``dim``, as twice C."""
    if layout == "interleaved":
        every = (slice(None),) * dim
        return parameters[*every, 0::2], parameters[*every, 1::2]
    shift, raw = parameters.chunk(2, dim=dim)
    return shift, raw


class AffineMap(NamedTuple):
    """x to (x + t) s or x s + t, with t and s from a network's output; all methods are outside autograd.

    Attributes:
        scale: Name of the scale map, one of :data:`flowzoo.ops.scales.OFFSETS`.
        order: ``"shift-scale"`` is (x + t) s, ``"scale-shift"`` is x s + t.
        layout: How shifts and raw log-scales share the channels of the network's output.
        offset_added: Whether raw log-scales come with the scale map's offset added.
    """

    scale: str
    order: AffineOrder
    layout: ParameterLayout
    offset_added: bool = False

    @property
    def keeps_output(self) -> bool:
        """Whether :meth:`backward` needs the map's output; else it needs the input."""
        return self.order == "shift-scale"

    def in_bias(self, kernel: Kernel) -> tuple[AffineMap, Kernel]:
        """The same map with its offset in the bias of the network's last convolution."""
        bias = kernel.bias.detach().clone()
        _, raw = shift_and_raw(bias, self.layout, dim=0)
        raw.add_(OFFSETS[self.scale])
        return self._replace(offset_added=True), kernel._replace(bias=bias)

    def forward(
        self, x: Tensor, shift: Tensor, raw: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mapped x, log s, and s.

        Args:
            x: Of any shape.
            shift: t, of the shape of ``x`` and its dtype or a narrower one.
            raw: Raw log-scales, of the same.
            out: Where the mapped x goes, possibly ``x`` itself; a new tensor if not given.
        """
        scale, log_scale = scale_into(self.scale, torch.empty_like(x), raw, self.offset_added)
        out = torch.empty_like(x) if out is None else out
        if self.order == "shift-scale":
            torch.add(x, shift, out=out).mul_(scale)
        else:
            torch.mul(x, scale, out=out).add_(shift)
        return out, log_scale, scale

    def inverse(
        self, z: Tensor, shift: Tensor, raw: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The x that is mapped to z, log s, and s."""
        scale, log_scale = scale_into(self.scale, torch.empty_like(z), raw, self.offset_added)
        out = torch.empty_like(z) if out is None else out
        if self.order == "shift-scale":
            torch.div(z, scale, out=out).sub_(shift)
        else:
            torch.sub(z, shift, out=out).div_(scale)
        return out, log_scale, scale

    def backward(
        self,
        kept: Tensor,
        scale: Tensor,
        grad_z: Tensor,
        grad_log_scale: Tensor,
        to_parameters: tuple[Tensor, Tensor],
        out: Tensor | None = None,
    ) -> Tensor:
        """The gradient at x; those at shifts and raw log-scales are written to ``to_parameters``.

        Args:
            kept: z or, in scale-shift order, x.
            scale: s.
            grad_z: The gradient at z.
            grad_log_scale: The part of the gradient at log s that comes from elsewhere, to be broadcast.
            to_parameters: Where the gradients at shifts and raw log-scales go.
            out: Where the gradient at x goes, possibly ``grad_z`` itself; a new tensor if not given.
        """
        to_shift, to_raw = to_parameters
        if self.order == "shift-scale":
            # dz / d log s = (x + t) s = z
            grad_log_scale = torch.addcmul(grad_log_scale, grad_z, kept)
            grad_x = torch.mul(grad_z, scale, out=out)
            to_shift.copy_(grad_x)
        else:
            # dz / d log s = x s
            to_shift.copy_(grad_z)
            grad_x = torch.mul(grad_z, scale, out=out)
            grad_log_scale = torch.addcmul(grad_log_scale, grad_x, kept)
        to_raw.copy_(scale_backward(self.scale, grad_log_scale, scale))
        return grad_x


def affine(x: Tensor, parameters: Tensor, elementwise: AffineMap, plain: Plain) -> tuple[Tensor, Tensor]:
    """:meth:`AffineMap.forward` of a network's output, with gradients.

    Returns:
        The mapped x, in the memory layout of ``x``, and sums of log s ``(B,)``.
    """
    if not torch.is_grad_enabled():
        z, log_scale, _ = elementwise.forward(x, *shift_and_raw(parameters, elementwise.layout))
        return z, log_scale.flatten(1).sum(1)
    z, log_det = apply(_Affine, x, parameters, elementwise, plain)
    return z, log_det


def affine_inverse(z: Tensor, parameters: Tensor, elementwise: AffineMap) -> tuple[Tensor, Tensor]:
    """:meth:`AffineMap.inverse` of a network's output and its log-determinants ``(B,)``, outside autograd."""
    x, log_scale, _ = elementwise.inverse(z, *shift_and_raw(parameters, elementwise.layout))
    return x, -log_scale.flatten(1).sum(1)


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, parameters: Tensor, elementwise: AffineMap, plain: Plain
    ) -> tuple[Tensor, Tensor]:
        z, log_scale, scale = elementwise.forward(x, *shift_and_raw(parameters, elementwise.layout))
        ctx.save_for_backward(x, parameters, z if elementwise.keeps_output else x, scale)
        ctx.elementwise, ctx.plain = elementwise, plain
        return z, log_scale.flatten(1).sum(1)

    @staticmethod
    @in_forward_dtypes
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        x, parameters, kept, scale = ctx.saved_tensors
        if needs_plain((grad_z, grad_log_det)):
            gradients = (grad_z, grad_log_det)
            return (
                *plain_backward(ctx.plain, (x, parameters), gradients, ctx.needs_input_grad[:2]),
                None,
                None,
            )
        batch, channels, *size = grad_z.shape
        grad = empty_gradient((batch, *size, 2 * channels), parameters.dtype, grad_z).movedim(-1, 1)
        to_parameters = shift_and_raw(grad, ctx.elementwise.layout)
        grad_log_scale = grad_log_det.view(-1, *(1,) * (grad_z.ndim - 1))
        grad_x = ctx.elementwise.backward(kept, scale, grad_z, grad_log_scale, to_parameters)
        return grad_x, grad, None, None


def empty_gradient(shape: Sequence[int], dtype: torch.dtype, like: Tensor) -> Tensor:
    """An empty gradient for a network's output, channels last in memory as its convolutions want it."""
    return like.new_empty(shape, dtype=dtype)
