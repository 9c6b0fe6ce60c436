"""``python -m benchmarks``: runs every section, or those named, and writes JSON, a page and its plots.

``python -m benchmarks SECTION...`` measures these sections again and keeps the others' results from the JSON of
earlier runs; ``--only TEXT`` measures the workloads of a section whose names have that text, and keeps its others;
``--page`` measures nothing and writes page and plots again.

``--device cuda`` measures what a GPU can show and writes docs/cuda.md instead; without a GPU it says so in one line.
``--device cpu --gpu-page --smallest --out FOLDER`` tries the same on the CPU. Peers take part that are importable;
README.md beside this file says how to carry them to a machine without a network.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks import comparison, cuda, families, plots, report, scaling, sections, startup
from benchmarks.contention import watch
from benchmarks.sections import Section, Settings

SECTIONS: dict[str, Section] = {
    "speed": comparison.speed,
    "presets": comparison.presets,
    "families": families.families,
    "loops": families.loops,
    "footprint": comparison.footprint,
    "memory": sections.memory,
    "celebahq": sections.celebahq,
    "mixture": sections.mixture,
    "drift": sections.drift,
    "startup": startup.startup,
    "loading": startup.loading,
    "scaling": scaling.scaling,
    "data_parallel": scaling.data_parallel,
    "costs": scaling.costs,
}
COMPARISONS = ("speed", "presets", "families", "loops")
"""Sections of which single workloads can be measured."""
DOCS = Path(__file__).resolve().parent.parent / "docs"


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(SECTIONS)))
@click.option(
    "--out", type=click.Path(path_type=Path), default=DOCS, help="Folder of the page; plots below it."
)
@click.option("--repeats", default=7, show_default=True, help="Runs of each subject.")
@click.option("--starts", default=Settings.starts, show_default=True, help="Processes of each subject.")
@click.option("--smallest", is_flag=True, help="The smallest workloads, to see that everything works.")
@click.option("--device", default="cpu", show_default=True, help="Where models run.")
@click.option(
    "--peers/--no-peers", default=True, show_default=True, help="Whether to measure other libraries."
)
@click.option("--only", default="", help="Text in the names of the workloads of comparisons to measure.")
@click.option("--gpu-page", is_flag=True, help="Measure what --device cuda does, also on another device.")
@click.option("--page", is_flag=True, help="Measure nothing; write the page again from the JSON.")
def main(
    names: tuple[str, ...],
    out: Path,
    repeats: int,
    starts: int,
    smallest: bool,
    device: str,
    peers: bool,
    only: str,
    gpu_page: bool,
    page: bool,
) -> None:
    """Measures flowzoo beside its floor and its peers."""
    on_cuda = device.startswith("cuda")
    if gpu_page and not on_cuda and out == DOCS:
        raise click.UsageError(
            "--gpu-page writes docs/cuda.md of a GPU alone; name another folder with --out."
        )
    if gpu_page or (on_cuda and not names and not page):
        return cuda.main(device, out, repeats, smallest=smallest)
    data = out / "benchmarks.json"
    results: dict[str, Any] = json.loads(data.read_text()) if data.exists() else {}
    if not page:
        results["machine"] = report.machine()
        starts = 1 if smallest else starts
        settings = Settings(repeats, starts, smallest, device, peers, only)
        for name in names or SECTIONS:
            print(f"{name} ...", file=sys.stderr, flush=True)  # noqa: T201
            others = watch()
            measured = SECTIONS[name](settings)
            if only and name in COMPARISONS:
                measured["rows"] = results.get(name, {"rows": {}})["rows"] | measured["rows"]
            results[name] = measured
            results.setdefault("others", {})[name] = others()
            results.setdefault("measured", {})[name] = settings.record(name)
            # After each, so that a run that is cut short has not been for nothing.
            out.mkdir(parents=True, exist_ok=True)
            data.write_text(json.dumps(results, indent=2) + "\n")
    text = report.page(results, plots.draw(results, out / "images" / "benchmarks"))
    (out / "benchmarks.md").write_text(text)
    click.echo(text)
    return None


if __name__ == "__main__":
    main()
