"""The model that a checkpoint becomes: built without storage, then given every tensor by module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from flowzoo.config import parse_config
from flowzoo.convert.layout import Converted
from flowzoo.factory import build_flow
from flowzoo.registry import config_class

M = TypeVar("M", bound=nn.Module)


class Target:
    """A flow on the meta device, and the state dict that grows for it.

    Modules are found by kind and in the order of the computation, so that no layout knows how an architecture
    names its parts.
    """

    def __init__(self, architecture: str, config: Mapping[str, Any]) -> None:
        """Builds the flow.

        Raises:
            FlowzooError: The plugin is not there, or refuses the config.
        """
        self.architecture = architecture
        self.config = dict(config)
        parsed = parse_config(config_class(architecture), config, architecture)
        self.flow = build_flow(architecture, parsed, device="meta")
        self._wanted = self.flow.state_dict()
        self._prefixes = {module: name for name, module in self.flow.named_modules()}
        self._state: dict[str, Tensor] = {}

    def all(self, kind: type[M], within: nn.Module | None = None) -> list[M]:
        """The modules of a kind, in the order of the computation; of the bijector unless said otherwise."""
        inside = self.flow.bijector if within is None else within
        return [module for module in inside.modules() if isinstance(module, kind)]

    def put(self, module: nn.Module, **tensors: Tensor) -> None:
        """Gives a module of the flow its parameters and buffers, in their shapes up to dimensions of size 1."""
        prefix = self._prefixes[module]
        for attribute, tensor in tensors.items():
            name = f"{prefix}.{attribute}"
            shape = self._wanted[name].shape
            if [s for s in tensor.shape if s != 1] != [s for s in shape if s != 1]:
                raise RuntimeError(f"{name} has shape {tuple(shape)} and was given {tuple(tensor.shape)}")
            self._state[name] = tensor.reshape(shape).to(self._wanted[name].dtype).contiguous()

    def finish(self) -> Converted:
        """The model, every data-dependent initialization marked as done."""
        for name in self._wanted:
            if name not in self._state and name.rpartition(".")[2] == "initialized":
                self._state[name] = torch.ones((), dtype=torch.bool)
        missing = sorted(set(self._wanted) - set(self._state))
        if missing:
            raise RuntimeError(f"no tensor was given to {', '.join(missing[:5])}")
        return Converted(architecture=self.architecture, config=self.config, state=self._state)
