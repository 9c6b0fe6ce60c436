"""The fields of a request's JSON, checked one by one; whatever is wrong is a line for the reader."""

from __future__ import annotations

import base64
import binascii
import math
from typing import TYPE_CHECKING, Any

import torch

from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["image_of", "label_of", "number", "pixels_of", "text"]


def text(body: dict[str, Any], name: str) -> str:
    """A text of the request."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InputError(f"the request's {name!r} is {_shown(value)}; expected a text.")
    return value


def number(body: dict[str, Any], name: str, least: float, most: float, *, whole: bool = False) -> float:
    """A number of the request within bounds."""
    value = body.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        found = float(value)
        if not whole or found.is_integer():
            return found
    kind = "a whole number" if whole else "a number"
    raise InputError(f"the request's {name!r} is {_shown(value)}; expected {kind} of {least:g} to {most:g}.")


def label_of(body: dict[str, Any], flow: Flow) -> int | None:
    """The class that the request names; of a conditional flow 0 if it names none, of another None."""
    if flow.labels is None:
        return None
    return int(number({"label": 0, **body}, "label", 0, flow.labels.classes - 1, whole=True))


def image_of(body: dict[str, Any], name: str, flow: Flow) -> Tensor:
    """An image of the request, base64 of its bytes (C, H, W), as uint8 ``(1, C, H, W)``."""
    value = body.get(name)
    size = math.prod(flow.image_shape)
    try:
        content = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != size:
        raise InputError(
            f"the request's {name!r} is no image of this model; expected base64 of {size} bytes, "
            f"{'x'.join(map(str, flow.image_shape))} (channels, height, width)."
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(1, *flow.image_shape)


def pixels_of(images: Tensor) -> list[str]:
    """Images ``uint8 (N, C, H, W)`` as base64 of their bytes."""
    return [base64.b64encode(image.cpu().contiguous().numpy().tobytes()).decode() for image in images]


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    found = repr(value)
    return found if len(found) <= 40 else f"{found[:37]}..."
