"""Likelihoods in full precision, whatever the process was set to before."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowzoo.flow import Flow


@contextlib.contextmanager
def full_precision(flow: Flow, device: torch.device) -> Iterator[None]:
    """Switches TF32, autocast and reduced network precision off; the backend settings are restored.

    A caller that trains with reduced network precision evaluates another copy of the model.
    """
    flow.set_network_dtype(None)
    before = torch.get_float32_matmul_precision()
    cudnn_before = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = cudnn_before
