"""Data-dependent initialisation: once, on one full batch, remembered by a buffer that is saved with the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DataDependentInit(nn.Module):
    """Base of modules whose parameters are set from the first batch they see (Salimans and Kingma, 2016).

    ``Flow.initialize`` switches ``initializing`` on, runs one batch through the model, and switches it off. A
    subclass calls ``self.wants_init()`` in its forward pass, sets its parameters from the batch if it is true, and
    ends with ``self.mark_initialized()``. An explicit phase costs no host synchronisation in training.

    Attributes:
        initialized: Scalar bool buffer.
        initializing: True during ``Flow.initialize`` only.
    """

    initialized: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        self.initializing = False

    def wants_init(self) -> bool:
        """True if this call is to set the parameters."""
        return self.initializing and not bool(self.initialized)

    def mark_initialized(self) -> None:
        """Remembers that the parameters are set."""
        self.initialized.fill_(True)
