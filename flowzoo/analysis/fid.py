"""The Frechet distance between two sets of images, of Gaussians fitted to features of torchvision's Inception v3.

The weights are torchvision's, so the figure is not one of papers, which use another conversion of the network
(Heusel et al., arXiv 1706.08500). They are used where they are on this machine, and never downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flowzoo.atomic import sha256_file
from flowzoo.errors import InputError, IntegrityError, WeightsUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["FEW_IMAGES", "find_network", "frechet_distance", "frechet_inception_distance", "load_network"]

_DIGEST = "0cc3c7bd"
_FILE = f"inception_v3_google-{_DIGEST}.pth"
"""What torchvision calls the file: the end of the name is the beginning of the content's SHA-256."""
_BATCH = 32
FEW_IMAGES = 2048
"""The network has as many features: of fewer images their covariance is singular, and the figure mostly bias."""


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features ``(N, F)`` and ``(M, F)``, in float64.

    Raises:
        InputError: A set has fewer than two items.
    """
    if len(a) < 2 or len(b) < 2:
        raise InputError("a Frechet distance needs at least two images in each set.")
    a, b = a.double(), b.double()
    first, second = torch.atleast_2d(torch.cov(a.T)), torch.atleast_2d(torch.cov(b.T))
    # The eigenvalues of C_a C_b are those of a product of two positive matrices: real and not negative.
    roots = torch.linalg.eigvals(first @ second).real.clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * roots)


def find_network() -> Path:
    """The file of the network's weights, where torchvision puts it.

    Raises:
        WeightsUnavailable: It is not on this machine.
        IntegrityError: It is not the file that its name promises.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / _FILE
    if not path.is_file():
        raise WeightsUnavailable(
            f"FID needs torchvision's Inception v3, and {path} is not there. It is not downloaded by flowzoo: load "
            "torchvision.models.inception_v3(weights='DEFAULT') once, or leave out --fid."
        )
    if not (found := sha256_file(path)).startswith(_DIGEST):
        raise IntegrityError(
            f"{path} has SHA-256 {found[:8]}..., and its name says {_DIGEST}: a download that was cut off, or another "
            "file. Delete it and load torchvision.models.inception_v3(weights='DEFAULT') again."
        )
    return path


def load_network() -> torch.nn.Module:
    """Inception v3 without its last layer: images ``(B, 3, 299, 299)`` to features ``(B, 2048)``.

    Raises:
        WeightsUnavailable: Its weights are not on this machine.
        IntegrityError: The file is not the one that its name promises.
    """
    from torchvision.models import inception_v3

    path = find_network()
    network: torch.nn.Module = inception_v3(
        weights=None, init_weights=False, aux_logits=True, transform_input=True
    )
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.fc = torch.nn.Identity()
    network.eval()
    return network


def frechet_inception_distance(
    a: Tensor,
    b: Tensor,
    *,
    network: Callable[[Tensor], Tensor] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> float:
    """The distance between images ``uint8 (N, C, H, W)`` and ``(M, C, H, W)``.

    Args:
        a: The images of one set; one channel is repeated, three stay as they are.
        b: Those of the other.
        network: Standardised images ``(B, 3, 299, 299)`` to features ``(B, F)``; :func:`load_network` unless given.
        advance: Called with the number of images after each batch.

    Raises:
        InputError: A set has fewer than two images.
        WeightsUnavailable: The network's weights are not on this machine.
    """
    found = load_network() if network is None else network
    return frechet_distance(_features(found, a, advance), _features(found, b, advance))


@torch.no_grad()
def _features(network: Callable[[Tensor], Tensor], images: Tensor, advance: Callable[[int], None]) -> Tensor:
    mean = torch.tensor((0.485, 0.456, 0.406)).reshape(3, 1, 1)
    spread = torch.tensor((0.229, 0.224, 0.225)).reshape(3, 1, 1)
    found = []
    for batch in images.cpu().split(_BATCH):
        coloured = batch.float().expand(-1, 3, -1, -1) / 255
        large = torch.nn.functional.interpolate(
            coloured, size=(299, 299), mode="bilinear", align_corners=False, antialias=True
        )
        found.append(network((large - mean) / spread))
        advance(len(batch))
    return torch.cat(found)
