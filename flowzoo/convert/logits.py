"""The preprocessing that three layouts share: logits of pixel values drawn in from the ends of [0, 1]."""

from __future__ import annotations

from flowzoo.convert.tensors import Tensors
from flowzoo.errors import InputError


def logit_alpha(source: Tensors, name: str) -> float:
    """The alpha of logit(alpha + (1 - 2 alpha) x) from the share of [0, 1] that is used, a buffer of one element.

    Args:
        source: The checkpoint.
        name: The buffer's name; its value, 0.9 in the released code, is 1 - 2 alpha.

    Raises:
        InputError: The buffer is missing or not between 0 and 1.
    """
    share = float(source.take(name, 1))
    if not 0 < share < 1:
        raise InputError(f"{name!r} is {share}; the layout {source.layout} expects a number between 0 and 1.")
    # The buffer is float32; seven digits are all it says.
    return round((1 - share) / 2, 7)
