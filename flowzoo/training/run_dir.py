"""A run's directory: what was asked, what was measured, what was learned.

```
run.json            recipe, config, versions, environment
metrics.jsonl       one row per line: a header, training windows, validations, events
before.jsonl        training windows, validations and beginnings of the runs that this one started from
.lock               held while a process trains here
checkpoints/STEP/   everything that resuming needs
best.safetensors    averaged weights with the best validation so far
regular.safetensors the best at a regular validation, while best.safetensors is of a pause
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
from flowzoo.errors import CheckpointError
from flowzoo.registry.files import check_characters
from flowzoo.training.plain_values import read_small_file
from flowzoo.training.recipe import Recipe, parse_recipe

COUNTED = ("seconds", "images", "step")
"""Columns of ``metrics.jsonl`` that only ever grow."""

SCHEMA = 1
"""The version of ``run.json``."""

FIGURES = ("loss", "lr", "grad_norm", "clipped", "images_per_s", "bpd", "nats_per_dim", "stderr")
"""Columns that are measured; null where the figure was not finite."""

MAX_HEADER_BYTES = 1 << 22

LARGEST = 1e18
"""Beyond any count, time or loss that was measured."""


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
        self.regular = self.path / "regular.safetensors"
        self.curve = self.path / "curve.png"
        self._header = self.path / "run.json"

    @property
    def exists(self) -> bool:
        """Whether a run was started here.

        Raises:
            CheckpointError: Something is in the place of its files that is no regular file.
        """
        for path in (self._header, self.metrics, self.before):
            if path.exists() and not path.is_file():
                raise CheckpointError(
                    f"{path} is no regular file, so {self.path} holds no run; choose another --out."
                )
        return self._header.is_file()

    def clean(self) -> None:
        """Removes what killed writers left."""
        inside = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        for directory in (self.path, self.checkpoints, self.samples, *inside):
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
            CheckpointError: It is missing, damaged or of another schema.
        """
        try:
            text = read_small_file(self._header, MAX_HEADER_BYTES)
            loaded = json.loads(text)
            check_characters(text, loaded)
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{self.path} holds no training run: {self._header.name} cannot be read ({error}). "
                "Give the directory that flowzoo train --out wrote."
            ) from error
        if not isinstance(loaded, dict):
            raise CheckpointError(f"{self._header} is not a JSON object; start the run again.")
        if loaded.get("schema", SCHEMA) != SCHEMA:
            raise CheckpointError(
                f"{self._header} has schema {loaded['schema']!r}; this flowzoo reads {SCHEMA}. Upgrade flowzoo, or "
                "start the run again."
            )
        self._check_header(loaded)
        return loaded

    def _check_header(self, header: dict[str, Any]) -> None:
        """Checks the fields that arithmetic is done with."""
        before = header.get("before") or {}
        good = {
            "recipe": isinstance(header.get("recipe") or {}, dict),
            "before": isinstance(before, dict) and all(_is_count(before.get(key, 0)) for key in COUNTED),
            "total_steps": _is_count(header.get("total_steps") or 0),
            "environment": isinstance(header.get("environment") or {}, dict),
            "versions": isinstance(header.get("versions") or {}, dict),
            "data": isinstance(header.get("data") or {}, dict),
            "extended": all(_is_stage(stage) for stage in _list(header.get("extended"))),
        }
        wrong = [key for key, fits in good.items() if not fits]
        if wrong:
            raise CheckpointError(
                f"{self._header} is damaged: {', '.join(wrong)} is not what flowzoo train writes. "
                "Start the run again in another directory."
            )

    def recipe(self) -> Recipe:
        """The recipe of the run, with the precision and the number of steps that it came to have."""
        return parse_recipe(self.header().get("recipe", {}), str(self._header))

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
        """All rows of ``metrics.jsonl``; a last one that was cut short is left out.

        Raises:
            CheckpointError: A line is not a row.
        """
        return _rows(self.metrics)

    def repair(self) -> int:
        """Leaves what no training wrote out of ``metrics.jsonl``, and puts a missing header back.

        A process that is killed while it writes a row leaves half of it, to which the next would be joined.

        Returns:
            How many whole lines were left out.
        """
        rows, wrong = _read_rows(self.metrics)
        if not rows or rows[0]["kind"] != "header":
            rows = [{"kind": "header", **self.header()}, *rows]
        self._write_rows(rows)
        return len(wrong)

    def _write_rows(self, rows: list[dict[str, Any]]) -> None:
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def history(self) -> list[dict[str, Any]]:
        """Training windows and validations since the weights were first drawn, in earlier runs too.

        Steps, images and seconds count from there. A row of kind ``stage`` stands where a run began that started from
        another.
        """
        past = self.header().get("before") or {}
        begun = [{"kind": "stage", **{key: past.get(key, 0) for key in COUNTED}}] if past else []
        mine = [
            row | {key: row.get(key, 0) + past.get(key, 0) for key in COUNTED}
            for row in self.rows()
            if row.get("kind") in ("train", "valid")
        ]
        return _rows(self.before) + begun + mine

    def likelihoods(self) -> list[dict[str, Any]]:
        """The history as far as it is in bits or nats per dimension: without losses of another objective."""
        recipe = self.header().get("recipe") or {}
        if not (recipe.get("train") or {}).get("objective"):
            return self.history()
        return [row for row in self.history() if row.get("kind") != "train"]

    def cost(self) -> dict[str, float]:
        """Steps, images and seconds that the weights have cost, those of earlier runs included."""
        past, rows = self.header().get("before") or {}, self.rows()
        return {key: max((row.get(key, 0) for row in rows), default=0) + past.get(key, 0) for key in COUNTED}

    def write_before(self, history: list[dict[str, Any]]) -> None:
        """Writes ``before.jsonl``: what the weights that this run starts from went through.

        Raises:
            CheckpointError: The disk refuses.
        """
        write_text(self.before, "".join(json.dumps(row) + "\n" for row in history))

    def rewind(self, step: int) -> float:
        """Drops the rows after ``step``, which resuming writes again, and a validation made for a pause.

        The best weights are again those of the best regular validation, as if there had been no pause.

        Returns:
            The compute seconds that the newest row knows of, lost work included.
        """
        rows = self.rows()
        self._write_rows([row for row in rows if row.get("step", 0) <= step and not row.get("pause")])
        if self.regular.is_file():
            self.regular.replace(self.best)
        return max((float(row.get("seconds", 0.0)) for row in rows), default=0.0)


def figure_of(row: dict[str, Any]) -> float | None:
    """The figure of a validation's row: bits, or of a density nats, per dimension; None if it was not finite."""
    found: float | None = row.get("bpd", row.get("nats_per_dim"))
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none if there is no file.

    Raises:
        CheckpointError: A line is not a row.
    """
    rows, wrong = _read_rows(path)
    if wrong:
        raise CheckpointError(
            f"{path} is damaged: line {wrong[0]} is not a row that a training wrote. "
            "`flowzoo train --out` of this run leaves such lines out, or remove them by hand."
        )
    return rows


def _read_rows(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The sound rows of a file of JSON lines and the numbers of the other lines.

    A last line without an end is neither, unless it is whole: a training may be writing it.
    """
    if not path.is_file():
        return [], []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows, wrong = [], []
    for number, line in enumerate(lines, 1):
        row = _parse_row(line)
        if row is not None:
            rows.append(row)
        elif line.strip() and number < len(lines):
            wrong.append(number)
    return rows, wrong


def _parse_row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        return None
    good = all(_is_count(row[key]) for key in COUNTED if key in row)
    good &= all(row.get(key) is None or _is_number(row[key]) for key in FIGURES)
    if row["kind"] in ("train", "valid"):
        good &= "step" in row and (row["kind"] == "train" or "bpd" in row or "nats_per_dim" in row)
    return row if good else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_stage(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_count(value.get(key)) for key in ("step", "steps"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
