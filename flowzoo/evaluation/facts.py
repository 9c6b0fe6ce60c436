"""The figures of a measurement and the facts of the model that they are of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flowzoo.evaluation.metrics import Mean, mean_and_stderr, nats_to_bpd

if TYPE_CHECKING:
    from flowzoo.data.images import ImageSet
    from flowzoo.evaluation.likelihood import Likelihoods
    from flowzoo.flow import Flow

__all__ = ["dequantization_of", "facts_of", "figures_of", "truth_of"]


def figures_of(flow: Flow, found: Likelihoods) -> dict[str, Any]:
    """The means with their standard errors: in nats, and in bits per dimension where these mean something."""
    nats = mean_and_stderr(-found.log_prob)
    bits = mean_and_stderr(nats_to_bpd(found.log_prob, flow.dims))
    bits = bits if flow.valid_bpd else Mean(math.nan, math.nan, nats.count)
    of_probes = math.sqrt(float(found.probe_variance.sum())) / nats.count
    unit = flow.dims * math.log(2) if flow.valid_bpd else 1.0
    return {
        "bpd": bits.value,
        "stderr": bits.stderr,
        "nats": nats.value,
        "nats_stderr": nats.stderr,
        "probe_stderr": of_probes / unit,
    }


def truth_of(images: ImageSet, found: Likelihoods, *, conditional: bool) -> dict[str, Any]:
    """Entropy of the density that vectors were drawn from, and the distance to it; nothing where it is not known.

    The distance is the mean of log p(x) - log q(x), p the truth and q the model: an estimate of the Kullback-Leibler
    divergence whose standard error lacks the scatter that both share.
    """
    from flowzoo.data.vectors import VectorSet

    if not isinstance(images, VectorSet) or images.true_entropy is None:
        return {}
    if conditional:
        return {"true_entropy": images.true_entropy}
    apart = mean_and_stderr(images.true_log_prob(images[found.indices]) - found.log_prob)
    return {
        "true_entropy": images.true_entropy,
        "divergence": apart.value,
        "divergence_stderr": apart.stderr,
    }


def facts_of(flow: Flow) -> dict[str, Any]:
    """The kind of model that a figure is of."""
    return {
        "kind": flow.log_det_kind,
        "inverse_kind": flow.inverse_kind,
        "unit": "bits/dim" if flow.valid_bpd else "nats",
        "dequantization": dequantization_of(flow),
        "is_lower_bound": flow.is_lower_bound,
        "dims": flow.dims,
        "data_kind": flow.data_kind,
        "classes": flow.labels.classes if flow.labels else 0,
        "label_dropout": bool(flow.labels and flow.labels.dropout),
    }


def dequantization_of(flow: Flow) -> str:
    """The noise that is added to data: ``uniform``, ``variational``, ``noisy`` (it fills no bins) or ``none``."""
    if flow.noise_kind == "none":
        return "none"
    return "variational" if flow.dequantization.is_lower_bound else "uniform" if flow.valid_bpd else "noisy"
