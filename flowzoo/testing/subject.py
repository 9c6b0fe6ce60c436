"""The subject of a conformance check: an architecture and ways to build its small models."""

from __future__ import annotations

from typing import Any

import torch

from flowzoo.api import Architecture, Preset
from flowzoo.errors import FlowzooError
from flowzoo.factory import build_flow, resolve
from flowzoo.flow import Flow
from flowzoo.registry import get_architecture
from flowzoo.testing.randomize import randomize

TOY_SHAPES = ((1, 2, 2), (1, 2, 4), (1, 4, 4))
"""Images small enough to enumerate, tried in this order by architectures without a ``toy`` preset."""


class NotAsked(str):
    """The detail of a check that does not concern an architecture: why not."""

    __slots__ = ()


class Subject:
    """An architecture under test.

    Attributes:
        architecture: Its metadata.
        tiny: Its ``tiny`` preset.
        device: Where its models are.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        """Looks the architecture up.

        Args:
            name: Its name.
            device: Where its models are.

        Raises:
            PluginError: The plugin is not usable.
        """
        self.architecture: Architecture = get_architecture(name)
        self.device = torch.device(device)
        self.tiny: Preset = self.architecture.presets["tiny"]
        self._model, self._overrides = f"{name}-tiny", dict[str, Any]()

    @classmethod
    def variant(cls, model: str, **overrides: Any) -> Subject:
        """A subject whose small model is another than the tiny preset, for checks of what a config can choose.

        Args:
            model: A preset such as ``"glow-tiny"``, or an architecture whose whole config is given.
            **overrides: Fields of the config.
        """
        architecture, _, _ = resolve(model, overrides)
        subject = cls(architecture.name)
        subject._model, subject._overrides = model, overrides
        return subject

    def build(self, seed: int, dtype: torch.dtype = torch.float64, *, random: bool = True) -> Flow:
        """The small model, in eval mode; with random non-zero parameters unless told otherwise."""
        _, _, config = resolve(self._model, self._overrides)
        return self._finish(config, seed, dtype, random)

    def build_toy(self, seed: int) -> Flow:
        """A model of so few possible images that all of them can be enumerated.

        It is the preset ``toy`` or the tiny model at a smaller size and one bit per grey level.
        """
        name = self.architecture.name
        if "toy" in self.architecture.presets:
            _, _, config = resolve(f"{name}-toy", {})
            return self._finish(config, seed, torch.float64, random=True)
        failures = []
        for shape in TOY_SHAPES:
            try:
                _, _, config = resolve(f"{name}-tiny", {"image_shape": shape, "n_bits": 1})
                flow = self._finish(config, seed, torch.float64, random=True)
                flow.log_prob(torch.zeros(1, *shape, dtype=torch.uint8, device=self.device))
            except (FlowzooError, RuntimeError) as error:
                failures.append(f"{shape}: {error}")
            else:
                return flow
        raise AssertionError(
            "no model small enough to enumerate: add a preset 'toy' with image_shape (1, 2, 2) or so and few bits. "
            + "; ".join(failures)
        )

    def _finish(self, config: object, seed: int, dtype: torch.dtype, random: bool) -> Flow:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = build_flow(self.architecture.name, config)
        flow = flow.to(self.device, dtype).eval()
        return randomize(flow, seed) if random else flow
