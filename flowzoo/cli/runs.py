"""``flowzoo runs``: the training runs of a directory in a table, or some of them compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowzoo.cli.output import json_option, note, print_json, print_line, table


@click.command()
@click.argument(
    "directories", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PNG",
    help="Draw the curves of all into one picture.",
)
@json_option
def runs(directories: tuple[Path, ...], plot: Path | None, as_json: bool) -> None:
    """List the training runs in one of DIRECTORIES, best first; of several, compare the runs.

    A comparison shows the fields of the recipes that differ, and the best figures.
    """
    if plot is not None and plot.suffix.lower() != ".png":
        raise click.UsageError(f"--plot {str(plot)!r} is no PNG; give a name that ends in .png.")
    if len(directories) == 1 and plot is None:
        _list(directories[0], as_json)
        return
    from flowzoo.training.runs import compare_runs, plot_runs

    found = compare_runs(directories)
    if plot is not None:
        plot_runs(found["runs"], plot)
        note(f"The curves are in {plot}.")
    if as_json:
        print_json(found)
    else:
        _compare(found)


def _compare(found: dict[str, Any]) -> None:
    """One column a run: figures first, then the fields that differ."""
    from flowzoo.training.runs import best_of

    compared = found["runs"]
    names = [run["run"] for run in compared]
    figures = [
        ("best", [_figure(best_of(run), run["unit"]) for run in compared]),
        ("at step", [run["best_step"] for run in compared]),
        ("steps", [f"{run['step']} of {run['steps']}" for run in compared]),
        ("images", [run["images"] for run in compared]),
        ("hours", [f"{run['hours']:.2f}" for run in compared]),
        ("parameters", [run["parameters"] for run in compared]),
        ("state", [run["state"] for run in compared]),
    ]
    # Not as headers, which are shown in capitals: a directory's name is kept as it is.
    rows = [("run", *names), *((key, *cells) for key, cells in figures)]
    rows += [(key, *map(_plain, cells)) for key, cells in found["differences"].items()]
    width = [max(len(_plain(row[i])) for row in rows) for i in range(len(names) + 1)]
    for row in rows:
        print_line(
            "  ".join(_plain(cell).ljust(size) for cell, size in zip(row, width, strict=True)).rstrip()
        )
    if not found["differences"]:
        note("Their recipes, data and versions are the same.")


def _figure(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.4f} {unit}"


def _plain(value: object) -> str:
    return "-" if value is None else " ".join(str(value).splitlines())


def _list(directory: Path, as_json: bool) -> None:
    from flowzoo.training.runs import best_of, list_runs

    found = list_runs(directory)
    if as_json:
        print_json(found)
        return
    headers = ("run", "model", "best", "at", "step", "of", "hours", "images", "state")
    rows = []
    for run in found:
        best = best_of(run)
        rows.append(
            (
                run["run"],
                run["name"],
                None if best is None else f"{best:.4f}{'' if run['best_bpd'] is not None else ' nats'}",
                run["best_step"],
                run["step"],
                run["steps"],
                f"{run['hours']:.2f}",
                run["images"],
                run["state"],
            )
        )
    table(headers, rows, right=("best", "at", "step", "of", "hours", "images"))
    if not found:
        note(f"No training run in {directory}: a run is a directory that flowzoo train --out wrote.")
