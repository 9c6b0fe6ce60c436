"""The state of an optimizer, whatever it is, as named tensors: what a checkpoint holds of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flowzoo.errors import CheckpointError

__all__ = ["load_optimizer_tensors", "optimizer_tensors"]

_NUMBERS = {bool: torch.bool, int: torch.int64, float: torch.float64}
_GROUP = "group "
_FIXED = ("lr", "initial_lr")
"""Numbers of a group that the recipe decides at every update."""


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as ``"parameter name/state name"`` to tensor.

    Numbers, of which torch's own optimizers keep none, end in their type: ``"name/state name#int"``; numbers that the
    optimizer keeps in its groups are under ``"group 0/name#float"``.

    Raises:
        CheckpointError: The optimizer keeps something else, which a checkpoint cannot hold.
    """
    names: dict[Any, str] = {p: name for name, p in model.named_parameters()}
    found: dict[str, Tensor] = {}
    for parameter, state in optimizer.state.items():
        if parameter not in names:
            raise _unfit(optimizer, "state that belongs to no parameter")
        for key, value in state.items():
            found |= _entry(optimizer, f"{names[parameter]}/{key}", value)
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if type(value) in (int, float) and key not in _FIXED:
                found |= _entry(optimizer, f"{_GROUP}{number}/{key}", value)
    return found


def _entry(optimizer: torch.optim.Optimizer, name: str, value: Any) -> dict[str, Tensor]:
    if value is None:
        return {}
    if isinstance(value, Tensor):
        return {name: value}
    if type(value) not in _NUMBERS:
        raise _unfit(optimizer, f"a {type(value).__name__} as {name!r}")
    return {f"{name}#{type(value).__name__}": torch.tensor(value, dtype=_NUMBERS[type(value)])}


def _unfit(optimizer: torch.optim.Optimizer, what: str) -> CheckpointError:
    return CheckpointError(
        f"The optimizer {type(optimizer).__name__} keeps {what}; expected tensors and numbers for each parameter, so "
        "that a checkpoint can hold them. Use another optimizer."
    )


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Puts back what :func:`optimizer_tensors` returned.

    Raises:
        CheckpointError: A tensor belongs to no parameter of the model.
    """
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition("/")
        key, _, number = key.partition("#")
        value: Any = tensor.item() if number else tensor
        if owner.startswith(_GROUP):
            optimizer.param_groups[int(owner.removeprefix(_GROUP))][key] = value
            continue
        parameter = parameters.get(owner)
        if parameter is None:
            raise CheckpointError(
                f"The checkpoint has optimizer state for {owner!r}, which the model does not have."
            )
        optimizer.state[parameter][key] = value if number else _placed(optimizer, key, tensor, parameter)


def _placed(optimizer: torch.optim.Optimizer, key: str, tensor: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of the state where the optimizer expects it."""
    if key == "step":
        # Step counts stay where torch keeps them: on the CPU unless the kernel is fused.
        fused = bool(optimizer.defaults.get("fused") or optimizer.defaults.get("capturable"))
        return tensor.to(parameter.device if fused else "cpu")
    if tensor.shape != parameter.shape:
        return tensor.to(parameter.device)
    # Moments must lie in memory as the parameter does (channels_last): fused kernels rely on it.
    return torch.empty_like(parameter.detach(), dtype=tensor.dtype).copy_(tensor)
