"""Optimizers by name, with checked arguments, over groups of parameters; gradient clipping."""

from __future__ import annotations

import inspect
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import flowzoo
from flowzoo.errors import ConfigError, did_you_mean
from flowzoo.ops import lists
from flowzoo.registry.extensions import Extension, find_extension
from flowzoo.registry.isolation import describe
from flowzoo.training.muon import MuonAdam

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowzoo.training.updates import Optimizer as OptimizerRecipe

GROUP = "flowzoo.optimizers"
"""The entry points; a value is a class of optimizers, or a function of (parameters or groups, **arguments)."""

UNFIT = {
    "muon": "it is for matrices alone; muon-adam takes kernels too, and moves everything else by Adam",
    "lbfgs": "it evaluates the loss several times an update, and the loop does so once",
    "sparseadam": "it is for sparse gradients, and those of a flow are dense",
}
"""Classes of ``torch.optim`` that the loop cannot use, and why."""

OWN = {"muon-adam": MuonAdam}
"""Optimizers that flowzoo brings."""

_FAMILY = {"adam": "Adam", "adamw": "AdamW", "adamax": "Adamax"}
Named = list[tuple[str, nn.Parameter]]


def torch_optimizers() -> dict[str, Any]:
    """The optimizers of torch that the loop can use, by their names in small letters."""
    return {
        name.lower(): cls
        for name, cls in vars(torch.optim).items()
        if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
        and name.lower() not in UNFIT
    }  # fmt: skip


def find_optimizer(name: str) -> Extension:
    """The class that a recipe's ``optimizer.name`` stands for: of torch, flowzoo's own, or of an entry point.

    Raises:
        ConfigError: There is none, or the loop cannot use it.
        PluginError: Its distribution is broken.
    """
    lower, known = name.lower(), torch_optimizers()
    if lower in UNFIT:
        raise ConfigError(f"recipe: optimizer.name is {name!r}, which cannot train here: {UNFIT[lower]}.")
    if lower in known:
        cls = known[lower]
        return Extension(
            group=GROUP, name=cls.__name__, value=cls, distribution="torch", version=torch.__version__
        )
    if lower in OWN:
        return Extension(
            group=GROUP, name=lower, value=OWN[lower], distribution="flowzoo", version=flowzoo.__version__
        )
    built_in = (*OWN, *(cls.__name__ for cls in known.values()))
    return find_extension(GROUP, name, built_in, "recipe: optimizer.name")


def check_optimizer(recipe: OptimizerRecipe, groups: tuple[Any, ...] = ()) -> Extension:
    """Finds a recipe's optimizer and checks the names of its arguments.

    Raises:
        ConfigError: The optimizer, or one of its arguments, is unknown.
        PluginError: Its distribution is broken.
    """
    found = find_optimizer(recipe.name)
    known = _arguments_of(found.value)
    given = {f"optimizer.{key}": key for key in recipe.others}
    if recipe.weight_decay:
        given["optimizer.weight_decay"] = "weight_decay"
    for number, group in enumerate(groups):
        given |= {f"train.groups.{number}.{key}": key for key in group if key not in ("match", "lr")}
    for place, key in given.items():
        if known is not None and key not in known:
            raise ConfigError(
                f"recipe: {place} is no argument of {found.name}, which knows {', '.join(known)}."
                f"{did_you_mean(key, known)}"
            )
    return found


def _arguments_of(factory: Any) -> list[str] | None:
    """Names of an optimizer's arguments besides the parameters; None if it takes any."""
    parameters = list(inspect.signature(factory).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def build_optimizer(
    recipe: OptimizerRecipe, model: nn.Module, groups: tuple[Any, ...] = ()
) -> torch.optim.Optimizer:
    """Makes the optimizer that a recipe describes, over the trainable parameters in their named order.

    Args:
        recipe: Name and arguments.
        model: Whose parameters.
        groups: ``[[train.groups]]``: patterns of names, and the arguments that differ for them.

    Raises:
        ConfigError: An argument is unknown or refused, or a pattern is none, or matches no parameter.
        PluginError: The optimizer's distribution is broken.
    """
    found = check_optimizer(recipe, groups)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    known = _arguments_of(found.value)
    common: dict[str, Any] = {"lr": recipe.lr} if known is None or "lr" in known else {}
    if recipe.own:
        common |= {"betas": recipe.betas, "eps": recipe.eps} | _kernels(recipe, named)
    common |= {key: _as_argument(value) for key, value in recipe.others.items()}
    parts = _groups(recipe, named, groups)
    if known is not None and "weight_decay" not in known:
        parts = [{key: value for key, value in part.items() if key != "weight_decay"} for part in parts]
    try:
        optimizer = found.value(parts, **common)
    except Exception as error:
        raise ConfigError(
            f"recipe: {found.name} of {found.distribution} {found.version} refuses its arguments: {describe(error)}"
        ) from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"recipe: optimizer.name {recipe.name!r} makes a {type(optimizer).__name__}; expected a "
            "torch.optim.Optimizer."
        )
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", recipe.lr)
    return optimizer


def _kernels(recipe: OptimizerRecipe, named: Named) -> dict[str, bool]:
    """The kind of kernel for the Adam family, unless the recipe says it."""
    if {"fused", "foreach", "capturable", "differentiable"} & set(recipe.others):
        return {}
    if recipe.name == "adamax":
        return {"foreach": True}
    # One fused kernel a step: on a CPU with many small tensors the update is several times faster.
    return {"fused": all(p.device.type in ("cpu", "cuda") for _, p in named)}


def _as_argument(value: Any) -> Any:
    """A value as Python has it: TOML's lists stand for tuples."""
    return tuple(value) if isinstance(value, list) else value


def _groups(recipe: OptimizerRecipe, named: Named, groups: tuple[Any, ...]) -> list[dict[str, Any]]:
    decay = recipe.weight_decay
    if groups:
        return _by_patterns(recipe, named, groups)
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


def _by_patterns(
    recipe: OptimizerRecipe, named: Named, groups: tuple[Mapping[str, Any], ...]
) -> list[dict[str, Any]]:
    """The parameters that no pattern matches first, so that their rate is the one that is logged."""
    taken: list[Named] = [[] for _ in groups]
    rest: Named = []
    for name, parameter in named:
        matching = (i for i, group in enumerate(groups) if fnmatchcase(name, group["match"]))
        number = next(matching, None)
        (rest if number is None else taken[number]).append((name, parameter))
    found: list[dict[str, Any]] = []
    if rest:
        found.append({"params": [p for _, p in rest], "weight_decay": recipe.weight_decay})
    for number, (group, chosen) in enumerate(zip(groups, taken, strict=True)):
        if not chosen:
            raise ConfigError(
                f"recipe: train.groups.{number}.match {group['match']!r} matches no parameter that an earlier group "
                f"leaves; a * stands for any characters, and names look like {named[0][0]!r}."
            )
        other = {key: _as_argument(value) for key, value in group.items() if key != "match"}
        if "lr" in other:
            other["initial_lr"] = other["lr"]
        found.append({"params": [p for _, p in chosen], "weight_decay": recipe.weight_decay} | other)
    return found


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rate of every group to a factor times its own."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scales gradients down to a norm of at most ``max_norm``, in place.

    Returns:
        The norm before clipping, a scalar on the device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if max_norm is not None:
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        lists.scale_(gradients, factor)
    return norm
