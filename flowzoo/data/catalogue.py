"""The built-in data sets."""

from __future__ import annotations

from flowzoo.data.api import Dataset
from flowzoo.data.catalogue_large import LARGE
from flowzoo.data.catalogue_points import POINTS
from flowzoo.data.catalogue_small import SMALL

__all__ = ["BUILT_IN"]

BUILT_IN: tuple[Dataset, ...] = (*SMALL, *LARGE, *POINTS)
"""All of them, small ones first, drawn ones last."""
