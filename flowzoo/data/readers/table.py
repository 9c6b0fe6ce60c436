"""Tables of real numbers: CSV files, and ``.npy`` files of floats."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowzoo.data.api import Dataset
from flowzoo.data.splitting import EmptySplit, split_of
from flowzoo.data.stored import parse_npy_header
from flowzoo.data.tables import TableForm
from flowzoo.errors import InputError, IntegrityError

__all__ = ["read", "read_csv", "rows_of"]

Floats = NDArray[np.float32]
Read = tuple[Tensor, NDArray[np.int64] | None, tuple[str, ...]]


def read(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Read:
    """Reads a split of a table.

    Returns:
        float32 (N, D); labels, int64 (N,), or None; and the names of the classes.

    Raises:
        InputError: if a cell is not a finite number, a row has another length than the first, or no row is left.
    """
    options = dataset.options
    names: tuple[str, ...] = ()
    labels = None
    if options["reader"] == "npy":
        values = _array(paths[0])
    else:
        values, classes = read_csv(paths[0], options["form"], options["columns"], options["label"])
        if classes is not None:
            names = tuple(sorted(set(classes), key=_in_order))
            numbers = {name: number for number, name in enumerate(names)}
            labels = np.array([numbers[name] for name in classes], dtype=np.int64)
    chosen = np.arange(len(values)) if options["all"] else rows_of(values, split)
    if not len(chosen):
        raise EmptySplit(
            f"The {split} split of {dataset.id!r} is empty: its {len(values)} rows are split by their content, and "
            "none falls there. Give more rows, or let every split hold all of them by '?split=all'."
        )
    return torch.from_numpy(values[chosen]), None if labels is None else labels[chosen], names


def rows_of(values: NDArray[np.generic], split: str) -> NDArray[np.int64]:
    """Positions of a split where nobody said which rows are held out: by the SHA-256 of each row."""
    splits = [split_of(np.ascontiguousarray(row).tobytes()) for row in values]
    return np.array([position for position, found in enumerate(splits) if found == split], dtype=np.int64)


def _array(path: Path) -> Floats:
    try:
        with path.open("rb") as file:
            header = parse_npy_header(file)
            found = path.stat().st_size - file.tell()
            if header.num_bytes != found:
                raise ValueError(f"its header claims {header.num_bytes} bytes of numbers, {found} follow")
            array = np.fromfile(file, header.dtype).reshape(
                header.shape, order="F" if header.fortran else "C"
            )
    except (ValueError, OSError) as error:
        raise IntegrityError(f"{path} is not a complete .npy file of numbers: {error}.") from error
    with np.errstate(over="ignore"):
        values: Floats = array.reshape(len(array), -1).astype(np.float32)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise InputError(
            f"{path}, row {row}, column {column}, counted from 0: found {array.reshape(values.shape)[row, column]}, "
            "expected a finite number that float32 holds. Remove the row, or mend the number."
        )
    return values


def read_csv(
    path: Path, form: TableForm, columns: Sequence[str], label: str | None = None
) -> tuple[Floats, list[str] | None]:
    """Reads columns of a CSV file.

    Args:
        path: The file, UTF-8.
        form: How it is written.
        columns: The columns of numbers, in the order wanted.
        label: The column of labels, if there is one.

    Returns:
        float32 (N, D), and the labels as text, stripped.

    Raises:
        InputError: a cell is empty, text, NaN or infinite, or a row is ragged; the message names line and column.
    """
    places = [form.columns.index(column) for column in columns]
    numbers: list[list[float]] = []
    classes: list[str] = []
    for line, row in _rows(path, form):
        if len(row) != len(form.columns):
            raise InputError(
                f"{path}, line {line}: found {len(row)} columns, expected {len(form.columns)} as in the first line."
            )
        numbers.append([_number(row[place], path, line, form.columns[place], place) for place in places])
        if label is not None:
            classes.append(row[form.columns.index(label)].strip())
            if not classes[-1]:
                raise InputError(f"{path}, line {line}, column {label!r}: the label is empty.")
    if not numbers:
        raise InputError(f"{path} has no rows below its header; expected one vector a line.")
    return np.array(numbers, dtype=np.float32), classes if label is not None else None


def _rows(path: Path, form: TableForm) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, with the number of the line on which each ends."""
    header = form.header
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=form.delimiter, skipinitialspace=True, strict=True)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if header:
                    header = False
                    continue
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a table in UTF-8: {error}.") from error


def _number(cell: str, path: Path, line: int, column: str, place: int) -> float:
    try:
        number = float(cell)
    except ValueError:
        found = repr(cell[:40]) if cell.strip() else "an empty cell"
        number = math.nan
    else:
        found = cell.strip()
    if not abs(number) <= float(np.finfo(np.float32).max):
        raise InputError(
            f"{path}, line {line}, column {place + 1} ({column!r}): found {found}, expected a finite number. Mend or "
            "remove the line, or choose columns by ?columns=A,B; a column of classes is named by ?label=C."
        )
    return number


def _in_order(name: str) -> tuple[int, int, str]:
    """Whole numbers in their order, then text."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
