"""Closed forms of backward passes by inversion: couplings, and bijectors that are made of others."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.bijectors.chain import Chain
from flowzoo.bijectors.coupling import Coupling
from flowzoo.bijectors.invertible import CLOSED_FORMS, Pull, Reversed, fresh, reverse
from flowzoo.bijectors.multiscale import FactorOut


def reverse_chain(chain: Chain, z: Tensor, context: Tensor | None, pull: Pull) -> Reversed:
    """Walks the chain from its end."""
    grad_context: Tensor | None = None
    for bijector in reversed(list(chain)):
        z, grad_z, term = reverse(bijector, z, context, pull)
        pull = pull._replace(grad_z=grad_z)
        if term is not None:
            grad_context = term if grad_context is None else grad_context + term
    return Reversed(z, pull.grad_z, grad_context)


def reverse_factor_out(split: FactorOut, z: Tensor, context: Tensor | None, pull: Pull) -> Reversed:
    """The rest first, since the prior of the half that left depends on the half that stayed."""
    z_rest, z_out = z.chunk(2, dim=1)
    grad_rest, grad_out = pull.grad_z.chunk(2, dim=1)
    kept, grad_kept, grad_context = reverse(split.rest, z_rest, context, pull._replace(grad_z=grad_rest))
    out, grad_out = z_out.reshape(kept.shape), grad_out.reshape(kept.shape)
    if split.prior is not None:
        out, grad_out, grad_prior = reverse(split.prior, out, kept, pull._replace(grad_z=grad_out))
        grad_kept = grad_kept if grad_prior is None else grad_kept + grad_prior
    x, grad_x = split.partition.merge(kept, out), split.partition.merge(grad_kept, grad_out)
    return Reversed(x, grad_x, grad_context)


def reverse_coupling(coupling: Coupling, z: Tensor, context: Tensor | None, pull: Pull) -> Reversed:
    """One evaluation of the network serves the inversion and the gradient."""
    transform, invert, around = pull.arithmetic
    conditioner, b_out = (half.detach() for half in coupling.partition.split(z))
    # A split is the transpose of its merge, so gradients are parted and joined as what they belong to.
    grad_direct, grad_b_out = coupling.partition.split(pull.grad_z)
    given, context = fresh(conditioner), None if context is None else fresh(context)
    with around(), torch.enable_grad():
        parameters = coupling.parameters_of(given, context)
        with torch.no_grad():
            b, _ = invert(coupling, b_out, parameters)
        b = fresh(b)
        outputs = transform(coupling, b, parameters)
    inputs = (b, given) if context is None else (b, given, context)
    gradients = (grad_b_out, pull.grad_log_det)
    grad_b, grad_given, *grad_context = pull.through(coupling, outputs, gradients, inputs)
    x = coupling.partition.merge(conditioner, b.detach())
    grad_x = coupling.partition.merge(grad_given + grad_direct, grad_b)
    return Reversed(x, grad_x, *(grad_context or (None,)))


CLOSED_FORMS.update({Chain: reverse_chain, FactorOut: reverse_factor_out, Coupling: reverse_coupling})
