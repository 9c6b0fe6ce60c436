"""Whether a model, its recipe and its data belong together: asked before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowzoo.errors import ConfigError, InputError

if TYPE_CHECKING:
    from flowzoo.data.images import ImageSet
    from flowzoo.flow import Flow
    from flowzoo.training.recipe import Recipe

__all__ = ["check_fit"]


def check_fit(flow: Flow, recipe: Recipe, data: tuple[ImageSet, ImageSet]) -> None:
    """Checks a model and the training and held-out data against each other and the recipe.

    Raises:
        InputError: The data are of another kind or shape, or have no labels, or more classes than the model.
        ConfigError: The recipe asks for labels of a model without, or drops labels that the model cannot do without.
    """
    _check_shapes(flow, recipe, data)
    if not recipe.data.labels:
        return
    if flow.labels is None:
        raise ConfigError(
            f"recipe: data.labels is true, and {recipe.name} has no classes. Leave it out, or choose a conditional "
            "model."
        )
    if recipe.train.label_dropout and not flow.labels.dropout:
        raise ConfigError(
            f"recipe: train.label_dropout is {recipe.train.label_dropout}, and {recipe.name} models nothing without a "
            "label. Leave it out, or build the model with label_dropout."
        )
    for found in data:
        greatest = int(found.needed_labels().max())
        if greatest >= flow.labels.classes:
            raise InputError(
                f"The {found.split} split of {found.id!r} has labels up to {greatest}; {recipe.name} has "
                f"{flow.labels.classes} classes, 0 to {flow.labels.classes - 1}. Build it with as many as the data."
            )


def _check_shapes(flow: Flow, recipe: Recipe, data: tuple[ImageSet, ImageSet]) -> None:
    found = data[0]
    if found.kind != flow.data_kind:
        raise InputError(
            f"{recipe.name} is for {flow.data_kind}; {found.id} holds {found.kind}. Choose another data set or model."
        )
    if tuple(found.data_shape) == tuple(flow.data_shape):
        return
    change = "model.image_shape=[C,H,W]" if flow.data_kind == "images" else "model.dims=D"
    raise InputError(
        f"{recipe.name} is for {flow.data_kind} {tuple(flow.data_shape)}; {found.id} has "
        f"{tuple(found.data_shape)}. Choose another preset, or --set {change}."
    )
