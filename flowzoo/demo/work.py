"""What the page asks for: models, samples, ways, attributes, the bits of a drawing. JSON in, JSON out."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import torch

from flowzoo.demo.requests import image_of, label_of, number, pixels_of, text
from flowzoo.errors import FlowzooError, InputError, UnknownModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowzoo.analysis.directions import Direction
    from flowzoo.evaluation.trained_model import Target

__all__ = ["Work", "local_models"]

MOST_SAMPLES = 24
MOST_STEPS = 33


def local_models() -> list[str]:
    """The names of all models of images whose weights are on this machine, the smallest images first."""
    from flowzoo.manifest.read import load_manifests
    from flowzoo.weights.hub.settings import hub_settings
    from flowzoo.weights.resolve import local_copies

    manifest = load_manifests()
    entries = [entry for name in manifest.names() if _pixels((entry := manifest.get(name)).config)]
    hub = hub_settings()
    here = [entry for entry in entries if any(True for _ in local_copies(entry, hub))]
    return [entry.name for entry in sorted(here, key=lambda entry: (_pixels(entry.config), entry.name))]


def _pixels(config: Any) -> int:
    """Values in an image; 0 of a model of vectors, which the page cannot show."""
    return math.prod(config.get("image_shape") or (0,))


class Work:
    """Everything that the page can ask for; one request computes at a time.

    Args:
        names: The models that are offered.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._lock = threading.Lock()
        self._loaded: dict[str, Target] = {}
        self._directions: dict[tuple[str, str, int | None], Direction] = {}
        self.actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "model": self.model,
            "sample": self.sample,
            "interpolate": self.interpolate,
            "attribute": self.attribute,
            "score": self.score,
        }

    def do(self, action: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answers a request.

        Raises:
            KeyError: There is no such action.
            FlowzooError: The request is not sound; the message is for the reader.
        """
        run = self.actions[action]
        with self._lock, torch.no_grad():
            return run(body)

    def models(self) -> dict[str, Any]:
        """The names of the models."""
        return {"models": self.names}

    def model(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the page has to know of a model."""
        from flowzoo.demo.attributes import attributes_of

        target = self._target(body)
        flow, entry = target.flow, target.entry
        measured = entry.measured if entry is not None else None
        return {
            "model": target.name,
            "shape": list(flow.image_shape),
            "data": target.dataset,
            "temperature": (entry.recommended_temperature if entry is not None else None) or 1.0,
            "bits_per_dim": measured.bpd if measured is not None else None,
            "classes": flow.labels.classes if flow.labels is not None else 0,
            "scored": flow.valid_bpd,
            "attributes": list(attributes_of(flow)),
        }

    def sample(self, body: dict[str, Any]) -> dict[str, Any]:
        """Samples with their bits per dimension."""
        from flowzoo.analysis.batches import draw, log_probs

        flow = self._target(body).flow
        count = int(number(body, "count", 1, MOST_SAMPLES, whole=True))
        seed = int(number(body, "seed", 0, 2**53, whole=True))
        temperature = number(body, "temperature", 0, 2)
        y = label_of(body, flow)
        images = draw(flow, count, y, temperature=temperature, seed=seed)
        bits = flow.nats_to_bits(log_probs(flow, images, y)).tolist() if flow.valid_bpd else [None] * count
        return {"images": pixels_of(images), "bits_per_dim": bits}

    def interpolate(self, body: dict[str, Any]) -> dict[str, Any]:
        """The way between two images."""
        from flowzoo.analysis.interpolation import interpolate

        flow = self._target(body).flow
        steps = int(number(body, "steps", 2, MOST_STEPS, whole=True))
        ends = image_of(body, "a", flow), image_of(body, "b", flow)
        images = interpolate(flow, *ends, label_of(body, flow), steps=steps)
        return {"images": pixels_of(images[0])}

    def attribute(self, body: dict[str, Any]) -> dict[str, Any]:
        """An image moved along the direction of an attribute."""
        from flowzoo.demo.attributes import direction_of, moved

        target = self._target(body)
        flow, name, y = target.flow, text(body, "attribute"), label_of(body, target.flow)
        x = image_of(body, "image", flow)
        key = (target.name, name, y)
        if key not in self._directions:
            self._directions[key] = direction_of(flow, name, target.dataset, y)
        strengths, images = moved(flow, x, self._directions[key], y)
        return {"images": pixels_of(images), "strengths": strengths}

    def score(self, body: dict[str, Any]) -> dict[str, Any]:
        """The bits of an image, its complexity, and its reconstruction: whole, and from the coarsest level."""
        from flowzoo.analysis.levels import latent_levels, reconstruct_levels
        from flowzoo.analysis.scores import score

        flow = self._target(body).flow
        x, y = image_of(body, "image", flow), label_of(body, flow)
        found = score(flow, x, y)
        again = flow.reconstruct(x, y)
        levels = len(latent_levels(flow))
        coarse = pixels_of(reconstruct_levels(flow, x, y).upto[:, 0])[0] if levels > 1 else None
        return {
            "bits_per_dim": float(found.bits_per_dim[0]),
            "complexity": float(found.complexity[0]),
            "reconstruction": pixels_of(again)[0],
            "wrong_pixels": int((again != x).sum()),
            "levels": levels,
            "coarse": coarse,
        }

    def _target(self, body: dict[str, Any]) -> Target:
        """The model of a request, loaded once."""
        from flowzoo.analysis.batches import require_images
        from flowzoo.evaluation.trained_model import find_target

        name = text(body, "model")
        if name not in self.names:
            raise UnknownModel(f"the page has no model {name[:60]!r}; it has {', '.join(self.names)}.")
        if name not in self._loaded:
            try:
                target = find_target(name)
                require_images(target.flow, "the page")
            except FlowzooError as error:
                raise InputError(f"{name} cannot be used: {error}") from error
            target.flow.eval()
            self._loaded[name] = target
        return self._loaded[name]
