"""Checkpoints of other implementations, imported: their tensors under flowzoo's names, their function as a config.

A layout is what one public implementation calls its tensors. A checkpoint is read as tensors alone (a ``torch.save``
file with ``weights_only=True``, or an ``.npz`` without objects); nothing in it is ever run. Importing this package
imports no torch.
"""

from __future__ import annotations

__all__ = ["LAYOUTS"]

LAYOUTS = {
    "rosinality/glow-pytorch": "flowzoo.convert.rosinality",
    "y0ast/Glow-PyTorch": "flowzoo.convert.y0ast",
    "chrischute/glow": "flowzoo.convert.chrischute_glow",
    "openai/glow": "flowzoo.convert.openai_glow",
    "chrischute/real-nvp": "flowzoo.convert.chrischute_realnvp",
    "chrischute/flowplusplus": "flowzoo.convert.chrischute_flowpp",
}
"""Every layout by its repository: the module whose ``LAYOUT`` reads it."""
