"""Codes made of histograms: bits per dimension of test images under counts of grey levels in training images.

Every count is smoothed by adding a constant to each of the levels, so that a level that training never showed has a
finite code; :func:`choose_smoothing` finds the constant on training images alone. The codes return the bits per
dimension of each test image, (N,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "bits_of_levels",
    "choose_smoothing",
    "class_mixture",
    "empirical_entropy",
    "histogram",
    "independent_dimensions",
]

Images = NDArray[np.uint8]
Figures = NDArray[np.float64]
TRUTH_SMOOTHING = 0.1
"""What the truth test adds to the counts of all images that are not the test's; see ``tools/truth.py``."""
CONSTANTS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


def choose_smoothing(train: Images, levels: int) -> float:
    """The constant under which nine tenths of the training images code the last tenth best, dimensions independent."""
    held_out = max(1, len(train) // 10)
    fitted, rest = train[:-held_out], train[-held_out:]
    costs = {s: independent_dimensions(fitted, rest, levels, s).mean() for s in CONSTANTS}
    return min(costs, key=lambda constant: costs[constant])


def histogram(train: Images, test: Images, levels: int, smoothing: float) -> Figures:
    """One histogram that all dimensions share.

    Args:
        train: Images that are counted, (M, D).
        test: Images that are coded, (N, D).
        levels: Number of grey levels; all values are below it.
        smoothing: What is added to every count.
    """
    counts = np.bincount(train.ravel(), minlength=levels) + smoothing
    bits = -np.log2(counts / counts.sum())
    return np.asarray(bits[test].mean(axis=1))


def independent_dimensions(train: Images, test: Images, levels: int, smoothing: float) -> Figures:
    """A histogram of its own for each dimension, none of which knows of another. Arguments as of histogram."""
    return _code(bits_of_levels(train, levels, smoothing), test)


def class_mixture(
    train: Images, labels: NDArray[np.int64], test: Images, levels: int, smoothing: float
) -> Figures:
    """The mixture over classes of independent dimensions, weighted by the classes' shares of the training images.

    Args:
        train: Images that are counted, (M, D).
        labels: Their classes, (M,).
        test: Images that are coded, without their labels, (N, D).
        levels: Number of grey levels.
        smoothing: What is added to every count.
    """
    dims = test.shape[1]
    terms = []
    for label in np.unique(labels):
        chosen = labels == label
        terms.append(
            np.log2(chosen.mean()) - dims * _code(bits_of_levels(train[chosen], levels, smoothing), test)
        )
    return np.asarray(-np.logaddexp2.reduce(np.stack(terms), axis=0) / dims)


def empirical_entropy(test: Images, levels: int) -> Figures:
    """A histogram for each dimension of the test images: no model of independent dimensions has fewer bits."""
    counts = _counts(test, levels).astype(np.float64)
    with np.errstate(divide="ignore"):
        return _code(-np.log2(counts / len(test)), test)


def _counts(images: Images, levels: int) -> NDArray[np.int64]:
    """How often each dimension has each level, (D, levels)."""
    dims = images.shape[1]
    places = np.arange(dims, dtype=np.int64) * levels
    counts = np.zeros(dims * levels, dtype=np.int64)
    for first in range(0, len(images), 4096):
        counts += np.bincount((images[first : first + 4096] + places).ravel(), minlength=dims * levels)
    return counts.reshape(dims, levels)


def bits_of_levels(train: Images, levels: int, smoothing: float) -> Figures:
    """Bits of each level of each dimension, (D, levels), by smoothed counts. Arguments as of histogram."""
    counts = _counts(train, levels) + smoothing
    return np.asarray(-np.log2(counts / counts.sum(axis=1, keepdims=True)))


def _code(bits: Figures, test: Images) -> Figures:
    """The mean over dimensions of the bits of each image's levels."""
    places = np.arange(bits.shape[0])
    parts = [bits[places, test[first : first + 1024]].mean(axis=1) for first in range(0, len(test), 1024)]
    return np.concatenate(parts)
