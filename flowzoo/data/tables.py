"""The user's own vectors as data sets: ``csv:FILE.csv`` and ``numpy:FILE.npy`` of floats. Torch-free.

A table has one vector a row. Without ``split=all`` each row is in the split that the SHA-256 of its numbers says, so
that equal rows are never on both sides.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from flowzoo.data.api import SPLITS, Dataset, Split
from flowzoo.data.paths import is_regular
from flowzoo.data.splitting import DESCRIPTIONS
from flowzoo.data.stored import parse_npy_header
from flowzoo.errors import DataUnavailable, InputError

__all__ = ["TableForm", "is_number", "parse_table", "sniff_csv"]

_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "space": " "}
_SNIFFED_BYTES = 1 << 16
_SNIFFED_ROWS = 20
_TERMS = "the user's own table: whatever terms it is under"


@dataclass(frozen=True, slots=True)
class TableForm:
    """How a CSV file is written.

    Attributes:
        delimiter: One character.
        header: Whether the first line names the columns.
        columns: Their names; without a header ``"0"``, ``"1"``, ...
    """

    delimiter: str
    header: bool
    columns: tuple[str, ...]


def parse_table(name: str) -> Dataset | None:
    """Returns the data set that a name of a table describes; None if it is not one of a table.

    Args:
        name: ``csv:FILE.csv[?columns=A,B][&label=C][&delimiter=comma][&header=yes][&split=all]``, or
            ``numpy:FILE.npy[?split=all]`` of a float array (N, D) or (N,).

    Raises:
        InputError: if the name is malformed, or the table has no such column.
        DataUnavailable: if there is no such file.
    """
    kind, _, rest = name.partition(":")
    place, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    path = Path(place).expanduser().absolute()
    if kind == "csv":
        return _csv(name, path if place else None, options)
    if kind != "numpy" or path.suffix != ".npy" or not is_regular(path):
        return None
    shape = _float_shape(path)
    if shape is None:
        return None
    _check_options(name, options, {"split"})
    note = "The array's numbers as float32."
    dims = 1 if len(shape) == 1 else shape[1]
    return _dataset(name, path, dims, note, options, {"reader": "npy"})


def _float_shape(path: Path) -> tuple[int, ...] | None:
    """Shape of an array of floats (N, D) or (N,) in an ``.npy`` file; None if it holds anything else."""
    try:
        with path.open("rb") as file:
            header = parse_npy_header(file)
    except (ValueError, OSError):
        return None  # whoever reads images from such files says what is wrong
    return header.shape if header.dtype.kind == "f" and len(header.shape) in (1, 2) else None


def _csv(name: str, path: Path | None, options: Mapping[str, str]) -> Dataset:
    if path is None:
        raise InputError(f"{name!r} names no file: expected csv:FILE.csv.")
    _check_options(name, options, {"columns", "label", "delimiter", "header", "split"})
    delimiter, header = options.get("delimiter"), options.get("header")
    if delimiter is not None and delimiter not in _DELIMITERS:
        raise InputError(f"{name!r}: delimiter must be one of {', '.join(_DELIMITERS)}, found {delimiter!r}.")
    if header not in (None, "yes", "no"):
        raise InputError(f"{name!r}: header must be yes or no, found {header!r}.")
    if not is_regular(path):
        raise DataUnavailable(f"There is no file {path}. Expected a table with one vector a line.")
    form = sniff_csv(
        path,
        delimiter=None if delimiter is None else _DELIMITERS[delimiter],
        header=None if header is None else header == "yes",
    )
    label = options.get("label")
    wanted = (
        options["columns"].split(",") if "columns" in options else [c for c in form.columns if c != label]
    )
    if twice := {column for column in wanted if wanted.count(column) > 1}:
        raise InputError(
            f"{name!r} asks for column {min(twice)!r} twice; equal numbers have no density: name each once."
        )
    for column in [*wanted, *([] if label is None else [label])]:
        if column not in form.columns:
            raise InputError(f"{path} has no column {column!r}; it has {', '.join(form.columns[:20])}.")
    if not wanted or label in wanted:
        raise InputError(f"{name!r} leaves no column of numbers beside the label {label!r}.")
    note = f"Columns {', '.join(wanted[:20])}{', ...' if len(wanted) > 20 else ''} as float32, unscaled."
    facts = {"reader": "csv", "form": form, "columns": tuple(wanted), "label": label}
    return _dataset(name, path, len(wanted), note, options, facts)


def sniff_csv(path: Path, *, delimiter: str | None = None, header: bool | None = None) -> TableForm:
    """Finds out how a CSV file is written, from its first 64 KiB and 20 lines.

    Args:
        path: The file, UTF-8.
        delimiter: The delimiter if it is known.
        header: Whether there is a header, if that is known; else there is one where the first line holds no number.

    Raises:
        InputError: if the file is empty, not text, or names a column twice.
    """
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    text = head.decode("utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(head) == _SNIFFED_BYTES and len(lines) > 1:
        lines.pop()  # it may be cut off
    if not lines or "\0" in text:
        raise InputError(
            f"{path} is {'not a text file' if lines else 'empty'}; expected a table, one vector a line."
        )
    lines = lines[:_SNIFFED_ROWS]
    delimiter = delimiter or _likeliest_delimiter(lines)
    first = next(csv.reader(lines[:1], delimiter=delimiter, skipinitialspace=True))
    if header is None:
        header = not any(is_number(cell) for cell in first)
    columns = (
        tuple(cell.strip() for cell in first) if header else tuple(str(place) for place in range(len(first)))
    )
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"{path} has two columns {twice!r}: give each its own name in the first line.")
    return TableForm(delimiter, header, columns)


def _likeliest_delimiter(lines: Sequence[str]) -> str:
    """The delimiter that cuts the lines into most cells, all into as many if there is such a one."""

    def merit(delimiter: str) -> tuple[bool, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)]
        return len(set(counts)) == 1 and counts[0] > 1, min(counts)

    return max(_DELIMITERS.values(), key=merit)


def is_number(cell: str) -> bool:
    """Whether a cell is a number, NaN and infinity included."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _check_options(name: str, options: Mapping[str, str], known: set[str]) -> None:
    if unknown := sorted(set(options) - known):
        raise InputError(
            f"{name!r} has the unknown option {unknown[0]!r}; known: {', '.join(sorted(known))}."
        )
    if options.get("split", "all") != "all":
        raise InputError(f"{name!r}: the only value of split is 'all' (every split holds all rows).")


def _dataset(
    name: str, path: Path, dims: int, note: str, options: Mapping[str, str], facts: Mapping[str, object]
) -> Dataset:
    whole = "split" in options
    return Dataset(
        id=name,
        title=f"The table {path}",
        release="as found",
        preprocessing="table-float32-v1",
        preprocessing_note=(
            f"{note} Each row is in the split that the SHA-256 of its float32 numbers says. Mean and standard "
            "deviation of the train split belong to the model, not to the data."
        ),
        kind="vectors",
        dims=dims,
        splits={
            split: Split(
                description="all rows" if whole else DESCRIPTIONS[split].replace("images", "rows"),
                alternatives=((str(path),),),
            )
            for split in SPLITS
        },
        reader="flowzoo.data.readers.table:read",
        terms=_TERMS,
        attribution="whoever made the table",
        how_to_get=f"save a table with one vector a row as {path}.",
        options={**facts, "all": whole},
    )
