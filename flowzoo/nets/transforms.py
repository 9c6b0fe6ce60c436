"""Whether derivatives are taken by transforms of functions, for modules that differentiate inside themselves."""

from __future__ import annotations

from flowzoo.ops.autograd import transforms_active

__all__ = ["transforms_active"]
