"""Measuring how far activations that were rebuilt by inversion are from the ones they stand for."""

from __future__ import annotations

import warnings

from torch import Tensor

DRIFT_BOUND = 1e-2
"""Largest tolerated difference between an input and its reconstruction, relative to the input's RMS."""


def warn_of_drift(x: Tensor, reconstruction: Tensor) -> None:
    """Warns if a reconstruction is off by more than :data:`DRIFT_BOUND`; measured on a CPU only."""
    # Elsewhere the host would wait for the device.
    if x.device.type != "cpu" or x.numel() == 0:
        return
    drift = float((reconstruction - x).abs().max() / x.square().mean().sqrt().clamp_min(1e-12))
    if not drift <= DRIFT_BOUND:
        warnings.warn(
            f"memory='invertible' rebuilt this chain's input with a relative error of {drift:.1e} "
            f"(bound {DRIFT_BOUND:.0e}); gradients may be wrong. Use memory='checkpoint' or float64.",
            stacklevel=2,
        )
