"""The former place of what is now in :mod:`flowzoo.densities`; goes with version 0.3."""

import warnings

from flowzoo.densities import *  # noqa: F403

warnings.warn(
    "flowzoo.dequantization is flowzoo.densities now; the old name goes with version 0.3.",
    DeprecationWarning,
    stacklevel=2,
)
