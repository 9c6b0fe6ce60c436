"""Proof of code and weights in seconds and without data: the figures of four generated images or vectors.

The items come from integer arithmetic and the dequantization noise from a counter-based generator, so
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
from flowzoo.nets.keyed import Keys

if TYPE_CHECKING:
    from flowzoo.flow import Flow
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.external import Unlisted

__all__ = [
    "TOLERANCE",
    "Comparison",
    "compare",
    "fingerprint_figures",
    "fingerprint_images",
    "fingerprint_vectors",
    "stated_fingerprint",
    "take_fingerprint",
]

TOLERANCE = 1e-5
"""Largest ``Comparison.difference`` between two evaluations of the same flow in float64."""

_SEED = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A flow's fingerprint beside the expected one.

    Attributes:
        expected: The four figures of the manifest.
        found: The same, measured now.
        tolerance: Largest difference that still agrees.
        unit: ``"bpd"`` of images, ``"nats"`` of a density.
    """

    expected: tuple[float, ...]
    found: tuple[float, ...]
    tolerance: float
    unit: str = "bpd"

    @property
    def difference(self) -> float:
        """The largest of the four differences, in the figures' unit; of figures above a thousand, for each thousand.

        Items that are like none of a model's data have large figures, of which machines agree on as many digits as of
        small ones and no more.
        """
        pairs = zip(self.expected, self.found, strict=True)
        return max(abs(a - b) / max(1.0, abs(a) / 1000) for a, b in pairs)

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


def fingerprint_vectors(dims: int) -> torch.Tensor:
    """Makes the four vectors: zeros, a ramp, alternating signs and a texture, all in [-1, 1].

    Args:
        dims: D.

    Returns:
        ``float64 (4, D)``, the same everywhere: integers are added, multiplied and divided, then halved.
    """
    number = torch.arange(dims)
    zeros = torch.zeros(dims, dtype=torch.int64)
    ramp = (2048 * (number + 1)) // (dims + 1) - 1024
    signs = 1024 - 2048 * (number % 2)
    texture = (((number + 1) * 2654435761) % 2**32) // 2**21 - 1024
    return torch.stack((zeros, ramp, signs, texture)).to(torch.float64) / 1024


@torch.no_grad()
def fingerprint_figures(flow: Flow) -> tuple[float, float, float, float]:
    """Evaluates a flow on the four images or vectors, with one fixed draw of every random number.

    Args:
        flow: An initialised flow; it is copied, and neither moved nor changed.

    Returns:
        Bits per dimension of each image, or minus the log-density in nats where bits mean nothing.

    Raises:
        InputError: The flow is not initialised.
        IntegrityError: A figure is not finite.
    """
    if not flow.is_initialized:
        raise InputError("The flow has seen no data yet; train or load it before taking its fingerprint.")
    exact = copy.deepcopy(flow).to(device="cpu", dtype=torch.float64).eval()
    exact.set_network_dtype(None)
    vectors = exact.data_kind == "vectors"
    items = fingerprint_vectors(exact.dims) if vectors else fingerprint_images(exact.image_shape)
    noise = keyed_noise(exact.noise_kind, exact.data_shape, _SEED, range(4), 0, dtype=torch.float64)
    nats = exact.log_prob(items, noise=noise, keys=Keys(seed=_SEED, items=range(4)))
    one, two, three, four = (exact.nats_to_bits(nats) if exact.valid_bpd else -nats).tolist()
    found = (one, two, three, four)
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
    found = fingerprint_figures(flow)
    if flow.valid_bpd:
        return Fingerprint(bpd=found, tolerance=TOLERANCE)
    return Fingerprint(nats=found, tolerance=TOLERANCE)


def compare(flow: Flow, expected: Fingerprint) -> Comparison:
    """Measures a flow's fingerprint and sets it beside the expected one."""
    unit = "nats" if expected.bpd is None else "bpd"
    return Comparison(expected.figures, fingerprint_figures(flow), expected.tolerance, unit)


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
