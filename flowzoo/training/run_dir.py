"""A run's directory: what was asked, what was measured, what was learned.

```
run.json            recipe, config, versions, environment
metrics.jsonl       one row per line: a header, training windows, validations, events
before.jsonl        training windows and validations of the runs that this one started from
checkpoints/STEP/   everything that resuming needs
best.safetensors    averaged weights with the best validation so far
last.safetensors    averaged weights at the end
curve.png           loss and validation against images seen, earlier runs included
samples/STEP.png    a grid of samples at each validation
```
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from flowzoo.atomic import remove_leftovers, write_text
from flowzoo.errors import CheckpointError, ConfigError
from flowzoo.training.recipe import Recipe, parse_recipe

OPERATIONAL = frozenset(
    f"train.{key}"
    for key in (
        "log_every",
        "checkpoint_every",
        "checkpoint_minutes",
        "keep",
        "samples",
        "temperature",
        "on_nan",
        "max_bad_steps",
    )
) | {"note"}
"""Recipe keys that may change when a run goes on: they do not move the weights of a healthy run."""

COUNTED = ("seconds", "images", "step")
"""Columns of ``metrics.jsonl`` that only ever grow."""


class RunDir:
    """Paths of a run and its small files.

    Args:
        path: The directory; made when first written to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.before = self.path / "before.jsonl"
        self.samples = self.path / "samples"
        self.best = self.path / "best.safetensors"
        self.last = self.path / "last.safetensors"
        self.curve = self.path / "curve.png"
        self._header = self.path / "run.json"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self._header.is_file()

    def clean(self) -> None:
        """Removes what killed writers left."""
        for directory in (self.path, self.checkpoints, self.samples):
            remove_leftovers(directory)

    def write_header(self, header: dict[str, Any]) -> None:
        """Writes ``run.json``.

        Raises:
            CheckpointError: The disk refuses.
        """
        write_text(self._header, json.dumps(header, indent=2) + "\n")

    def header(self) -> dict[str, Any]:
        """Reads ``run.json``.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        try:
            loaded = json.loads(self._header.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} holds no training run: {self._header.name} cannot be read ({error}). "
                "Give the directory that flowzoo train --out wrote."
            ) from error
        if not isinstance(loaded, dict):
            raise CheckpointError(f"{self._header} is not a JSON object; start the run again.")
        return loaded

    def recipe(self) -> Recipe:
        """The recipe the run was started with."""
        return parse_recipe(self.header().get("recipe", {}), str(self._header))

    def check_same(self, recipe: Recipe) -> None:
        """Checks that going on with ``recipe`` continues this run.

        Raises:
            ConfigError: It asks for something else; the message lists the keys.
        """
        changed = [key for key in self.recipe().differences(recipe) if key not in OPERATIONAL]
        if changed:
            raise ConfigError(
                f"{self.path} holds a run with another recipe; they differ in {', '.join(changed)}. "
                "Resume it with its own recipe, or choose another --out (and --init-from this one)."
            )

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row to ``metrics.jsonl``.

        Raises:
            CheckpointError: The disk refuses.
        """
        # JSON has no NaN or infinity: a figure that is not finite is null.
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        try:
            with self.metrics.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(row) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"Cannot write {self.metrics}: {error}. Checkpoints are intact; free some space and resume."
            ) from error

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows of ``metrics.jsonl``; a last one that was cut short is left out."""
        return _rows(self.metrics)

    def history(self) -> list[dict[str, Any]]:
        """Training windows and validations since the weights were first drawn, in earlier runs too.

        Steps, images and seconds count from there.
        """
        past = self.header().get("before") or {}
        mine = [
            row | {key: row.get(key, 0) + past.get(key, 0) for key in COUNTED}
            for row in self.rows()
            if row.get("kind") in ("train", "valid")
        ]
        return _rows(self.before) + mine

    def cost(self) -> dict[str, float]:
        """Steps, images and seconds that the weights have cost, those of earlier runs included."""
        past, rows = self.header().get("before") or {}, self.rows()
        return {key: max((row.get(key, 0) for row in rows), default=0) + past.get(key, 0) for key in COUNTED}

    def write_before(self, earlier: RunDir) -> None:
        """Writes ``before.jsonl``: what the weights that this run starts from went through.

        Raises:
            CheckpointError: The disk refuses, or ``earlier`` holds no run.
        """
        write_text(self.before, "".join(json.dumps(row) + "\n" for row in earlier.history()))

    def rewind(self, step: int) -> float:
        """Drops the rows after ``step``, which resuming writes again.

        Returns:
            The compute seconds that the newest row knows of, lost work included.
        """
        rows = self.rows()
        kept = [row for row in rows if row.get("step", 0) <= step]
        if len(kept) < len(rows) or rows:
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        return max((float(row.get("seconds", 0.0)) for row in rows), default=0.0)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a file of JSON lines; none if there is no file."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
