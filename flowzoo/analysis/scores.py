"""Bits per dimension of single images, scores of how unusual they are, and how well a score tells two sets apart."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from flowzoo.analysis.batches import Advance, log_probs, require_images, silent
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["SCORES", "Compressor", "Scores", "auroc", "complexity", "score"]

Compressor = Literal["png", "zlib"]

SCORES = ("likelihood", "typicality", "complexity_corrected")
"""The outlier scores; of each, more means more unusual."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of N images, float64 ``(N,)`` each, in bits per dimension; more means more unusual.

    Attributes:
        bits_per_dim: -log2 P(x) / D.
        complexity: The size of the image as a compressor writes it, over D.
        entropy: The mean bits/dim of what is usual, which typicality is measured from.
    """

    bits_per_dim: Tensor
    complexity: Tensor
    entropy: float

    @property
    def likelihood(self) -> Tensor:
        """The bits per dimension themselves: unusual is what is unlikely. Plain images pass as usual by it."""
        return self.bits_per_dim

    @property
    def typicality(self) -> Tensor:
        """|bits/dim - entropy|: too likely is unusual too (Nalisnick et al., arXiv 1906.02994, a batch of one)."""
        return (self.bits_per_dim - self.entropy).abs()

    @property
    def complexity_corrected(self) -> Tensor:
        """bits/dim - complexity: how much worse than a general compressor (Serra et al., arXiv 1909.11480, eq. 1)."""
        return self.bits_per_dim - self.complexity


def score(
    flow: Flow,
    x: Tensor,
    y: int | None = None,
    *,
    entropy: float | None = None,
    compressor: Compressor = "png",
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    advance: Advance = silent,
) -> Scores:
    """Scores images.

    Args:
        flow: A flow over images that gives bits per dimension.
        x: Images ``uint8 (N, C, H, W)``.
        y: One label for all, of a conditional flow, for the bits of the image given it.
        entropy: Mean bits/dim of usual images, as of the model's test split; the mean over ``x`` if not given.
        compressor: ``"png"`` (optimised) or ``"zlib"`` (level 9, of the raw bytes).
        samples: Draws of noise an image, importance-weighted.
        seed: Key of the noise: an image at one position has the same figure whatever else is scored.
        batch_size: Images computed at a time.
        advance: Called after each batch.

    Raises:
        InputError: The flow has no bits per dimension, or the images do not fit.
    """
    require_images(flow, "a score")
    if not flow.valid_bpd:
        raise InputError(
            "this model is a density of noisy images, which has no bits per dimension to score by."
        )
    found = log_probs(flow, x, y, samples=samples, seed=seed, batch_size=batch_size, advance=advance)
    bits = flow.nats_to_bits(found)
    return Scores(bits, complexity(x, compressor), float(bits.mean()) if entropy is None else entropy)


def complexity(x: Tensor, compressor: Compressor = "png") -> Tensor:
    """Compressed size of images ``uint8 (N, C, H, W)``, in bits per dimension, float64 ``(N,)``, header included."""
    if compressor not in ("png", "zlib"):
        raise InputError(f"compressor is {compressor!r}; expected 'png' or 'zlib'.")
    size = _png_size if compressor == "png" else _zlib_size
    return torch.tensor([8 * size(image) / image.numel() for image in x.cpu()], dtype=torch.float64)


def _png_size(image: Tensor) -> int:
    from PIL import Image

    pixels = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", optimize=True)
    return buffer.tell()


def _zlib_size(image: Tensor) -> int:
    return len(zlib.compress(image.contiguous().numpy().tobytes(), 9))


def auroc(usual: Tensor, unusual: Tensor) -> float:
    """Area under the ROC curve: the chance that an unusual item has the higher score, a tie counting half.

    Args:
        usual: Scores ``(N,)`` of the set that is to score low.
        unusual: Scores ``(M,)`` of the set that is to score high.

    Returns:
        0.5 where the score tells nothing, 1 where it always tells them apart, below 0.5 where it is misled.

    Raises:
        InputError: A set is empty, or a score is not a number.
    """
    if not len(usual) or not len(unusual):
        raise InputError("auroc needs scores of two sets; one is empty.")
    if bool(usual.isnan().any() | unusual.isnan().any()):
        raise InputError("auroc was given a score that is not a number.")
    ordered = usual.double().sort().values
    below = torch.searchsorted(ordered, unusual.double(), right=False)
    up_to = torch.searchsorted(ordered, unusual.double(), right=True)
    return float((below + up_to).double().sum() / 2 / (len(usual) * len(unusual)))
