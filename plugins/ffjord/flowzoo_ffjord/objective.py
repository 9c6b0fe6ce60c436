"""RNODE's objective: the likelihood with penalties that keep the ways straight (Finlay et al., 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from flowzoo.errors import InputError
from flowzoo_ffjord.bijectors import ContinuousFlow, penalised

if TYPE_CHECKING:
    from flowzoo.flow import Flow

KINETIC = 0.01
JACOBIAN = 0.01


def rnode(
    flow: Flow,
    log_prob: Callable[[Tensor, Tensor | None, Tensor | None], Tensor],
    x: Tensor,
    noise: Tensor,
    y: Tensor | None,
) -> Tensor:
    """Bits (or nats) per dimension + 0.01 kinetic energy / D + 0.01 |Jacobian|^2 / D, ``(B,)``.

    Named ``train.objective = "rnode"`` in a recipe. The penalties are what makes a coarse grid accurate.

    Raises:
        InputError: The model has no continuous flow, or does not store its activations.
    """
    if not any(isinstance(part, ContinuousFlow) for part in flow.modules()):
        raise InputError("The objective rnode is for continuous flows; this model has none. Take ffjord.")
    with penalised(flow) as found:
        loss = flow.per_dim(log_prob(x, noise, y))
    penalty = KINETIC * found.kinetic + JACOBIAN * found.jacobian
    if not isinstance(penalty, Tensor) or not penalty.requires_grad:
        raise InputError(
            "The objective rnode needs the activations of the flow; set the recipe's memory to store, and compile to "
            "false."
        )
    return loss + penalty / flow.dims
