"""Recomputes the running statistics of batch norms, as weights that were averaged need it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from flowzoo.bijectors.normalization import FlowBatchNorm
from flowzoo.errors import InputError
from flowzoo.flow import Flow
from flowzoo.nets.resnet import ShiftBatchNorm2d

OWN = (FlowBatchNorm, ShiftBatchNorm2d)
"""flowzoo's batch norms. They are none of torch's, since the one has a log-determinant and the other no scale."""

TORCHS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@torch.no_grad()
def update_batch_norm(flow: Flow, batches: Iterable[Tensor | tuple[Tensor, Tensor | None]]) -> int:
    """Sets the running mean and variance of every batch norm to the average over these batches.

    ``torch.optim.swa_utils.update_bn`` does so for torch's own batch norms alone; this does it for those, too. Modes
    and momenta are as before when it returns or raises.

    Args:
        flow: The flow, for example ``averaged.module`` of an ``AveragedModel``.
        batches: Batches of data, or pairs of data and labels, as :func:`flowzoo.data.batches` gives them.

    Returns:
        The number of batch norms.

    Raises:
        InputError: There is a batch norm and no batch.
    """
    norms: list[Any] = [module for module in flow.modules() if isinstance(module, (*OWN, *TORCHS))]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    modes = [(module, module.training) for module in flow.modules()]
    flow.train()
    count = 0
    try:
        for batch in batches:
            count += 1
            for norm in norms:
                # The k-th batch has a share of 1/k, so that all count alike.
                norm.momentum = 1 / count
            x, y = batch if isinstance(batch, (tuple, list)) else (batch, None)
            flow.log_prob(x, y)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    if not count:
        raise InputError("update_batch_norm got no batches; give at least one, better some dozens.")
    return len(norms)
