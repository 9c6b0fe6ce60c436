"""Training recipes: strict, torch-free data in TOML.

```toml
schema = 1
name = "glow-mnist"            # architecture, or architecture-preset
[model]                        # overrides of the preset's config
hidden_channels = 128
[data]
dataset = "mnist"
[train]
steps = 20000
batch_size = 64
[optimizer]
name = "adam"
lr = 1e-3
[[schedule]]                   # factors of optimizer.lr, one segment after the other
kind = "linear"
steps = 200
[[schedule]]
kind = "cosine"
```
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flowzoo.config import config_to_dict, extension, parse_config
from flowzoo.errors import ConfigError
from flowzoo.training.plain_values import apply_override, check_values, copy_values, read_small_file
from flowzoo.training.updates import (
    MAX_STEPS,
    Optimizer,
    Segment,
    check_groups,
    gather_arguments,
    require,
    spread_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "SCHEMA",
    "Data",
    "Optimizer",
    "Recipe",
    "Segment",
    "Train",
    "flatten",
    "parse_recipe",
    "read_recipe",
    "with_defaults",
]

SCHEMA = 1
"""The version of the recipe format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The images that a model is trained and selected on.

    Attributes:
        dataset: Data set id, such as ``"mnist"``; empty means the preset's.
        split: Split that gradients see; never ``"test"``.
        valid_split: Split, held out of training data, that checkpoints are selected on; never ``"test"``.
        augment: Augmentations by name, in order: ``"flip"``, ``"translate-10"``, ``"shift-1"``, or entry points of
            ``flowzoo.augmentations``.
        limit: Use only this many training images; None for all.
        labels: Whether the model is trained and validated on log p(x | y), with the data set's labels.
    """

    dataset: str = ""
    split: str = "train"
    valid_split: str = "valid"
    augment: tuple[str, ...] = ()
    limit: int | None = None
    labels: bool = False

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit > 0, "data.limit", self.limit, "a positive number")
        for key in ("split", "valid_split"):
            if getattr(self, key) == "test":
                raise ConfigError(
                    f"recipe: data.{key} is 'test'. Test images are only for the final figure, which flowzoo eval "
                    "measures: train on train, and select on valid."
                )
        if self.split == self.valid_split:
            raise ConfigError(
                f"recipe: data.split and data.valid_split are both {self.split!r}; validation needs images that "
                "gradients have not seen."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """The loop. Exactly one of ``steps`` and ``epochs`` is given.

    Attributes:
        steps: Number of updates.
        epochs: Passes through the training images, fractions allowed.
        batch_size: Images an update, over all processes and accumulated parts together.
        accumulate: Parts that a batch is computed in, one after the other.
        init_images: Images of the one batch for data-dependent initialization.
        seed: Key of every random number: weights, order, noise, augmentation.
        precision: Type that the networks inside couplings run in; everything else stays float32. ``auto`` is
            bfloat16 where the device has units for it, else float32; a run records which it was.
        memory: ``store`` activations, ``checkpoint``: compute them again in the backward pass, or
            ``invertible``: rebuild them from the output.
        compile: Run through torch.compile.
        deterministic: Ask for deterministic kernels; without it, CUDA runs do not resume bit for bit.
        clip_norm: Gradients are scaled down to this norm; None for never.
        ema: Decay of the moving average of the weights; 0 for none.
        log_every: Steps between two rows of ``metrics.jsonl``.
        validate_every: Steps between two validations.
        validate_images: Held-out images a validation; None for all.
        patience: Stop after this many validations without a new best; None for never.
        checkpoint_every: Steps between two checkpoints; None for by the clock only.
        checkpoint_minutes: Minutes between two checkpoints.
        keep: Number of newest checkpoints that are kept.
        on_nan: What a loss or gradient that is not finite does: ``stop``, ``skip`` the update, or
            ``rollback`` to the last checkpoint and skip past it.
        max_bad_steps: Bad updates in a row after which ``skip`` and ``rollback`` stop as well.
        samples: Images in the sample grid at each validation; 0 for none.
        temperature: Temperature of those samples.
        label_dropout: Probability that an item's label is left out of an update, so that the model learns p(x) too.
        objective: What is minimised: empty for the negative log-likelihood, or an entry point of
            ``flowzoo.objectives``.
        groups: Parameters that are updated otherwise than the rest: tables with ``match``, a pattern of their names
            such as ``"*.bias"``, and arguments of the optimizer. The first group that matches counts.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 64
    accumulate: int = 1
    init_images: int = 256
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    memory: Literal["store", "checkpoint", "invertible"] = "store"
    compile: bool = False
    deterministic: bool = True
    clip_norm: float | None = None
    ema: float = 0.0
    log_every: int = 50
    validate_every: int = 1000
    validate_images: int | None = 1000
    patience: int | None = None
    checkpoint_every: int | None = None
    checkpoint_minutes: float = 5.0
    keep: int = 2
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    max_bad_steps: int = 20
    samples: int = 64
    temperature: float = 0.7
    label_dropout: float = 0.0
    objective: str = ""
    # Not in a recipe that has none: TOML does not take an empty list and [[train.groups]] in one file.
    groups: tuple[Any, ...] = extension(())

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError("recipe: give exactly one of train.steps and train.epochs.")
        for name in _POSITIVE:
            value = getattr(self, name)
            require(value is None or value > 0, f"train.{name}", value, "a positive number")
        require(
            self.steps is None or self.steps <= MAX_STEPS, "train.steps", self.steps, f"at most {MAX_STEPS}"
        )
        require(0 <= self.seed < 1 << 64, "train.seed", self.seed, "0 to 2^64 - 1")
        require(0 <= self.ema < 1, "train.ema", self.ema, "a decay from 0 up to 1")
        require(
            0 <= self.label_dropout < 1, "train.label_dropout", self.label_dropout, "a share from 0 up to 1"
        )
        require(self.samples >= 0, "train.samples", self.samples, "0 or a positive number")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"recipe: train.batch_size {self.batch_size} does not divide into "
                f"{self.accumulate} equal parts; choose a multiple of train.accumulate."
            )

    def total_steps(self, num_images: int) -> int:
        """Number of updates, given the number of training images.

        Raises:
            ConfigError: ``epochs`` would be more updates than a training can have.
        """
        if self.steps is not None:
            return self.steps
        total = (self.epochs or 0.0) * (num_images // self.batch_size)
        require(
            total <= MAX_STEPS, "train.epochs", self.epochs, f"at most {MAX_STEPS} updates, here {total:.3g}"
        )
        return max(1, math.ceil(total))


_POSITIVE = (
    "steps",
    "epochs",
    "batch_size",
    "accumulate",
    "init_images",
    "clip_norm",
    "log_every",
    "validate_every",
    "validate_images",
    "patience",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep",
    "max_bad_steps",
    "temperature",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training's outcome.

    Attributes:
        schema: Version of the format.
        name: ``architecture`` or ``architecture-preset``.
        note: Where the figures come from, and how they depart from the paper.
        model: Overrides of the preset's config.
        data: See :class:`Data`.
        train: See :class:`Train`.
        optimizer: See :class:`Optimizer`.
        schedule: See :class:`Segment`; empty for a constant rate.
    """

    schema: int
    name: str
    train: Train
    note: str = ""
    model: Any = field(default_factory=dict)
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        _check_schema(self.schema, "recipe")
        if not isinstance(self.model, dict):
            raise ConfigError(f"recipe: model is {self.model!r}; expected a table of config values.")
        if any(segment.steps is None for segment in self.schedule[:-1]):
            raise ConfigError("recipe: only the last schedule segment may leave out steps; give the others.")
        check_groups(self.train.groups, self.optimizer.decay_names)
        if self.train.label_dropout and not self.data.labels:
            raise ConfigError(
                "recipe: train.label_dropout needs labels; add data.labels = true, or leave it out."
            )

    def to_dict(self) -> dict[str, Any]:
        """The whole recipe as JSON values, as a file would have them."""
        return spread_arguments(config_to_dict(self))

    def differences(self, other: Recipe) -> list[str]:
        """Keys, such as ``"train.steps"``, in which two recipes differ."""
        mine, theirs = flatten(self.to_dict()), flatten(other.to_dict())
        missing = object()
        keys = sorted(set(mine) | set(theirs))
        return [key for key in keys if mine.get(key, missing) != theirs.get(key, missing)]


def parse_recipe(data: Mapping[str, Any], where: str, sets: Iterable[str] = ()) -> Recipe:
    """Builds a recipe from plain values and ``key=value`` overrides.

    Args:
        data: What TOML or JSON holds.
        where: What is being read, for error messages.
        sets: Overrides such as ``"train.steps=2000"``, ``"model.depth=4"``, ``"schedule.0.steps=100"``.

    Raises:
        ConfigError: A key is unknown, or a value impossible.
    """
    check_values(data, where)
    tree = copy_values(data)
    for text in sets:
        apply_override(tree, text)
    check_values(tree, where)
    _check_schema(tree.get("schema", SCHEMA), where)  # first: another version has other keys
    gather_arguments(tree)
    return parse_config(Recipe, tree, where)


def _check_schema(schema: object, where: str) -> None:
    if schema != SCHEMA:
        raise ConfigError(f"{where}: schema is {schema}; this flowzoo reads {SCHEMA}. Upgrade either.")


def read_recipe(path: str | Path, sets: Iterable[str] = ()) -> Recipe:
    """Reads a TOML recipe.

    Raises:
        ConfigError: The file is missing, not TOML or not a recipe.
    """
    try:
        data = tomllib.loads(read_small_file(Path(path)))
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read ({error}); give an existing TOML file.") from error
    except (ValueError, RecursionError) as error:  # also for thousands of digits or brackets
        raise ConfigError(f"recipe {path} is not TOML: {error}.") from error
    return parse_recipe(data, f"recipe {path}", sets)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Tables within tables as one, with keys such as ``"train.steps"`` and ``"schedule.0.kind"``."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {str(number): item for number, item in enumerate(value)}
    if isinstance(value, dict) and value:
        items = value.items()
        return {k: v for name, item in items for k, v in flatten(item, f"{prefix}{name}.").items()}
    return {prefix[:-1]: value}


def with_defaults(recipe: Recipe, *, dataset: str | None) -> Recipe:
    """Fills in the preset's data set where the recipe names none.

    Raises:
        ConfigError: Neither names one.
    """
    if recipe.data.dataset:
        return recipe
    if not dataset:
        raise ConfigError(
            f"recipe for {recipe.name}: no data set is named; add --set data.dataset=ID. "
            "`flowzoo data list` shows the ids, and how to name images of your own."
        )
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, dataset=dataset))
