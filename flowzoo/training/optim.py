"""Optimizers, their state as named tensors, and gradient clipping."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flowzoo.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowzoo.training.recipe import Optimizer as OptimizerRecipe


def build_optimizer(recipe: OptimizerRecipe, model: nn.Module) -> torch.optim.Optimizer:
    """Makes the optimizer that a recipe describes, over the trainable parameters in their named order.

    Raises:
        ConfigError: ``decay_names`` is not a regular expression, or matches no parameter.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    common: dict[str, Any] = {"lr": recipe.lr, "betas": recipe.betas, "eps": recipe.eps}
    groups = _groups(recipe, named)
    if recipe.name == "adamax":
        return torch.optim.Adamax(groups, foreach=True, **common)
    cls = torch.optim.AdamW if recipe.name == "adamw" else torch.optim.Adam
    # One fused kernel a step: on a CPU with many small tensors the update is several times faster.
    fused = all(p.device.type in ("cpu", "cuda") for _, p in named)
    return cls(groups, fused=fused, **common)


def _groups(recipe: OptimizerRecipe, named: list[tuple[str, nn.Parameter]]) -> list[dict[str, Any]]:
    decay = recipe.weight_decay
    if not decay or not recipe.decay_names:
        return [{"params": [p for _, p in named], "weight_decay": decay}]
    try:
        pattern = re.compile(recipe.decay_names)
    except re.error as error:
        raise ConfigError(f"recipe: optimizer.decay_names is not a regular expression: {error}.") from error
    chosen = [p for name, p in named if pattern.search(name)]
    if not chosen:
        raise ConfigError(
            f"recipe: optimizer.decay_names {recipe.decay_names!r} matches no parameter; "
            f"names look like {named[0][0]!r}."
        )
    others = [p for name, p in named if not pattern.search(name)]
    return [{"params": chosen, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as ``"parameter name/state name"`` to tensor."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"{names[p]}/{key}": value for p, state in optimizer.state.items() for key, value in state.items()
    }


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
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters.get(parameter_name)
        if parameter is None:
            raise CheckpointError(
                f"The checkpoint has optimizer state for {parameter_name!r}, which the model does not have."
            )
        if key == "step":
            # Step counts stay where torch keeps them: on the CPU unless the kernel is fused.
            fused = bool(optimizer.defaults.get("fused"))
            optimizer.state[parameter][key] = tensor.to(parameter.device if fused else "cpu")
        else:
            # Moments must lie in memory as the parameter does (channels_last): fused kernels rely on it.
            optimizer.state[parameter][key] = torch.empty_like(parameter.detach()).copy_(tensor)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scales gradients down to a norm of at most ``max_norm``, in place.

    Returns:
        The norm before clipping, a scalar on the device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if max_norm is not None:
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        torch._foreach_mul_(gradients, factor)
    return norm
