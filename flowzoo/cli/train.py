"""``flowzoo train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowzoo.cli.output import fields, json_option, print_json, print_line
from flowzoo.training.toml_text import toml_lines

if TYPE_CHECKING:
    from flowzoo.training.loop import Outcome


@click.command()
@click.argument("name", required=False)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The run's directory; if a run is there, it goes on.",
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override, such as train.steps=2000.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where data sets are [$FLOWZOO_DATA].")
@click.option("--device", help="cpu, cuda or cuda:1; a GPU if there is one.")
@click.option(
    "--max-seconds", type=float, help="Stop after this many seconds, with checkpoint and validation."
)
@click.option(
    "--stop-after",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Stop once the run has had so many updates, with checkpoint and validation.",
)
@click.option(
    "--init-from",
    type=click.Path(exists=True, path_type=Path),
    help="Start from a run's best weights, or a file; the model may have been narrower.",
)
@click.option(
    "--extend", type=int, metavar="STEPS", help="Train a run that has ended for so many more updates."
)
@click.option("--on-nan", type=click.Choice(["stop", "skip", "rollback"]), help="What a bad update does.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; another number gives other last bits.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard events too.")
@click.option(
    "--logger",
    "loggers",
    multiple=True,
    metavar="NAME",
    help="tensorboard, or a plugin's logger; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be trained, its memory and its time.")
@json_option
def train(
    name: str | None,
    out: Path | None,
    sets: tuple[str, ...],
    extend: int | None,
    on_nan: str | None,
    threads: int | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Train NAME (a preset such as glow-mnist, or recipe.toml), or go on with the run in --out.

    A run that was interrupted, by whatever, goes on bit for bit when the same command is given again. With --extend a
    run that has ended is trained longer; from there on its learning rate is that of a training of the new length.
    Several processes: torchrun --nproc-per-node N -m flowzoo train ...
    """
    if name is None and (out is None or dry_run):
        raise click.UsageError("Give a preset or a recipe.toml, or --out with a run that is to go on.")
    if out is None and not dry_run:
        raise click.UsageError("Give --out DIR, the run's directory.")
    if extend is not None and (name is not None or sets or dry_run):
        raise click.UsageError(
            "--extend goes on with the run in --out as it is; leave out NAME, --set and --dry-run."
        )
    from flowzoo.devices import set_threads
    from flowzoo.distributed import is_main_process
    from flowzoo.training.train import find_recipe, longer_recipe
    from flowzoo.training.train import train as run_training

    if threads is not None:
        set_threads(threads)
    if on_nan is not None:
        sets = (*sets, f"train.on_nan={on_nan}")
    if extend is not None:
        assert out is not None
        recipe = longer_recipe(out, extend)
    else:
        recipe = find_recipe(name, sets) if name is not None else _own_recipe(out, sets)
    if dry_run:
        from flowzoo.training.dry_run import dry_run as plan

        _show_plan(plan(recipe, data_root=options["data_root"], device=options["device"]), as_json)
        return 0
    assert out is not None
    outcome = run_training(recipe, out, **options)
    if is_main_process():
        _show_outcome(outcome, out, as_json)
    return 0


def _show_outcome(outcome: Outcome, out: Path, as_json: bool) -> None:
    if as_json:
        nats = {"best_nats_per_dim": outcome.best} if outcome.unit == "nats/dim" else {}
        print_json(
            {
                "state": outcome.state,
                "step": outcome.step,
                "best_bpd": outcome.best_bpd,
                **nats,
                "best_step": outcome.best_step,
                "hours": round(outcome.hours, 4),
                "run": str(out),
            }
        )
        return
    best = "no validation yet"
    if outcome.best is not None:
        best = f"best validation {outcome.best:.4f} {outcome.unit}"
    print_line(f"{out}: {outcome.state} at step {outcome.step}, {best}, {outcome.hours:.2f} h")


def _own_recipe(out: Path | None, sets: tuple[str, ...]) -> Any:
    from flowzoo.training.recipe import parse_recipe
    from flowzoo.training.run_dir import RunDir

    assert out is not None
    return parse_recipe(RunDir(out).recipe().to_dict(), str(out), sets)


def _show_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    for line in toml_lines(plan.pop("recipe")):
        print_line(line)
    print_line()
    fields((key, f"{value:,}" if isinstance(value, int) else value) for key, value in plan.items())
