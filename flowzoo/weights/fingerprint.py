"""Proof of code and weights in seconds and without data: bits per dimension of four generated images.

The images come from integer arithmetic and the dequantization noise from a counter-based generator, so
both are the same bits everywhere. The flow is evaluated in float64, where different machines agree to far
more digits than the tolerance asks for; what remains is whether code and weights are the right ones.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowzoo.errors import InputError, IntegrityError
from flowzoo.evaluation.noise import keyed_noise
from flowzoo.manifest.schema import Fingerprint
from flowzoo.manifest.typed_json import read

if TYPE_CHECKING:
    from flowzoo.flow import Flow
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.external import Unlisted

__all__ = [
    "TOLERANCE",
    "Comparison",
    "compare",
    "fingerprint_bpd",
    "fingerprint_images",
    "stated_fingerprint",
    "take_fingerprint",
]

TOLERANCE = 1e-5
"""Largest difference, in bits per dimension, between two evaluations of the same flow in float64."""

_SEED = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A flow's fingerprint beside the expected one.

    Attributes:
        expected: Bits per dimension of the four images, from the manifest.
        found: The same, measured now.
        tolerance: Largest difference that still agrees.
    """

    expected: tuple[float, ...]
    found: tuple[float, ...]
    tolerance: float

    @property
    def difference(self) -> float:
        """The largest of the four differences, in bits per dimension."""
        return max(abs(a - b) for a, b in zip(self.expected, self.found, strict=True))

    @property
    def verified(self) -> bool:
        """Whether all four agree."""
        return self.difference <= self.tolerance


def fingerprint_images(image_shape: tuple[int, ...]) -> torch.Tensor:
    """Makes the four images: a ramp, a disc, a checkerboard of blocks and a texture.

    Args:
        image_shape: ``(C, H, W)``.

    Returns:
        ``uint8 (4, C, H, W)``, the same everywhere: only integers are added, multiplied and divided.
    """
    channels, height, width = image_shape
    c = torch.arange(channels).reshape(-1, 1, 1)
    y = torch.arange(height).reshape(1, -1, 1)
    x = torch.arange(width).reshape(1, 1, -1)
    ramp = (255 * (x + (c + 1) * y)) // (width + (c + 1) * height)
    # Twice the distance from the centre, squared: the centre lies between pixels.
    distance = (2 * x + 1 - width) ** 2 + (2 * y + 1 - height) ** 2
    disc = (240 - (480 * distance) // (width * width)).clamp(min=0) // (c + 1)
    blocks = 40 + 170 * ((8 * x // width + 8 * y // height + c) % 2)
    # Knuth's multiplicative hash of the pixel's number; 64-bit integers hold the product.
    number = (c * height + y) * width + x + 1
    texture = 96 + ((number * 2654435761) % 2**32) // 2**26
    images = [torch.broadcast_to(image, image_shape) for image in (ramp, disc, blocks, texture)]
    return torch.stack(images).to(torch.uint8)


@torch.no_grad()
def fingerprint_bpd(flow: Flow) -> tuple[float, float, float, float]:
    """Evaluates a flow on the four images, with one fixed draw of noise each.

    Args:
        flow: An initialised flow; it is copied, and neither moved nor changed.

    Returns:
        Bits per dimension of each image.

    Raises:
        InputError: The flow is not initialised.
        IntegrityError: A figure is not finite.
    """
    if not flow.is_initialized:
        raise InputError("The flow has seen no data yet; train or load it before taking its fingerprint.")
    exact = copy.deepcopy(flow).to(device="cpu", dtype=torch.float64).eval()
    exact.set_network_dtype(None)
    images = fingerprint_images(exact.image_shape)
    noise = keyed_noise(exact.noise_kind, exact.image_shape, _SEED, range(4), 0, dtype=torch.float64)
    ramp, disc, blocks, texture = exact.nats_to_bits(exact.log_prob(images, noise=noise)).tolist()
    found = (ramp, disc, blocks, texture)
    if not all(abs(value) < float("inf") for value in found):
        raise IntegrityError(
            f"The fingerprint is {found}; expected four finite figures. The weights are not usable."
        )
    return found


def take_fingerprint(flow: Flow) -> Fingerprint:
    """Makes the fingerprint that a manifest entry holds.

    Raises:
        InputError: The flow is not initialised.
        IntegrityError: A figure is not finite.
    """
    return Fingerprint(bpd=fingerprint_bpd(flow), tolerance=TOLERANCE)


def compare(flow: Flow, expected: Fingerprint) -> Comparison:
    """Measures a flow's fingerprint and sets it beside the expected one."""
    return Comparison(tuple(expected.bpd), fingerprint_bpd(flow), expected.tolerance)


def stated_fingerprint(card: Entry | Unlisted | None, name: str) -> Fingerprint | None:
    """The fingerprint that a manifest entry or a ``flowzoo.json`` states; None if it states none.

    Raises:
        ManifestError: What a ``flowzoo.json`` says is none; the message begins with ``name``.
    """
    found = getattr(card, "fingerprint", None)
    details = getattr(card, "details", {})
    if found is None and details.get("fingerprint"):
        found = read(Fingerprint, details["fingerprint"], name, "$.fingerprint")
    return found
