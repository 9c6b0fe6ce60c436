"""Writes ``docs/conformance.md``: ``python -m tools.conformance [ARCHITECTURE...]``.

Every check of the conformance kit is run on every architecture, with the engine on and off. Where some are named only
these are run, and the page keeps its other columns. Below stand the parameters of the papers' configurations beside
those that were published; these are read from the plugins and the manifest each time. The command fails if a check
does; the page is written all the same.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click

from flowzoo.api import Architecture
from flowzoo.manifest.read import Manifest
from flowzoo.manifest.write import read_manifest
from flowzoo.registry import get_architecture
from flowzoo.testing import CHECKS, CheckResult, NotAsked, Subject, run_checks, run_conformance
from tools.cells import count, table, wide
from tools.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/conformance.md"
ARCHITECTURES = tuple(name for members in FAMILIES.values() for name in members)

PLANE: Mapping[str, Mapping[str, Any]] = {
    "splines": {"dims": 2, "features": 8},
    "maf": {"dims": 2, "layers": 2, "hidden": (8,)},
    "naf": {"dims": 2, "steps": 2, "features": 8, "units": 3},
    "residual": {"dims": 2, "blocks": (2,), "channels": 8, "coefficient": 0.9, "estimator": "exact"},
    "ffjord": {"dims": 1, "blocks": 1, "hidden": (8,), "trace": "exact", "steps": 6},
    "cdf": {"dims": 2, "elementwise": "normals", "base": "normal", "components": 3},
}
"""Small models of one or two numbers, for the check that is asked of no model of images."""
OF_POINTS = "density integrates"
OF_ENGINE = "engine equals plain"

State = Literal["yes", "**wrong**", "-"]

INTRODUCTION = f"""# Conformance

<!-- Written by `python -m tools.conformance`; do not edit. -->

Every check of the [conformance kit](plugins.md#the-conformance-kit) on every architecture: on its tiny preset with
random weights, with the engine on / off (`flowzoo.engine.disabled()`). A dash stands where a check does not concern an
architecture: no estimate to be keyed, no noise that fills a bin. `{OF_POINTS}` is asked of densities of one or two
numbers, so of a small model of these where the architecture has one. `flowzoo plugins check NAME` prints how
large each error is; `flowzoo/testing` holds the checks.
"""

COUNTS = """## Parameters beside the published counts

Of every configuration for which a figure or a count is published: trainable parameters as it is built here, the count
that is published (or, where the last column says so, counted from the layers of the authors' code), and where a
difference comes from.
"""


class Case(NamedTuple):
    """A check of an architecture, with the engine on or off."""

    check: str
    architecture: str
    engine: bool


def results(architecture: str, *, engine: bool) -> list[CheckResult]:
    """The outcomes of all checks on an architecture, the one of points on a model of points where it has one."""
    found = [
        result._replace(detail=NotAsked("both are plain"))
        if result.check == OF_ENGINE and not engine
        else result
        for result in run_conformance(architecture, engine=engine)
    ]
    if architecture not in PLANE:
        return found
    subject = Subject.variant(architecture, **PLANE[architecture])
    (of_points,) = run_checks(subject, (OF_POINTS,), engine=engine)
    return [of_points if result.check == OF_POINTS else result for result in found]


def state(result: CheckResult) -> State:
    """The cell of an outcome."""
    if not result.passed:
        return "**wrong**"
    return "-" if isinstance(result.detail, NotAsked) else "yes"


@click.command()
@click.argument("names", nargs=-1, metavar="[ARCHITECTURE]...")
def main(names: tuple[str, ...]) -> None:
    """Runs the kit and writes the page."""
    if unknown := [name for name in names if name not in ARCHITECTURES]:
        raise click.UsageError(f"no architecture {unknown[0]!r}; there are: {', '.join(ARCHITECTURES)}.")
    before = PAGE.read_text(encoding="utf-8") if names and PAGE.is_file() else ""
    states, details = kept(before, set(names))
    for name in names or ARCHITECTURES:
        for engine in (True, False):
            for result in results(name, engine=engine):
                case = Case(result.check, name, engine)
                states[case] = state(result)
                if not result.passed:
                    details[case] = result.detail
                click.echo(f"{states[case]:9} {_label(case)}: {result.detail}", err=True)
    PAGE.write_text(page(states, details), encoding="utf-8")
    if details:
        raise click.ClickException(f"{len(details)} of {len(states)} checks failed; see {PAGE}.")


def _label(case: Case) -> str:
    return f"{case.check}, {case.architecture}, engine {'on' if case.engine else 'off'}"


def page(states: Mapping[Case, State], details: Mapping[Case, str]) -> str:
    """The page for these outcomes; a check that is missing was not run.

    Args:
        states: The cells.
        details: What is wrong, of those that failed.
    """
    import torch

    asked = [cell for cell in states.values() if cell != "-"]
    passed = asked.count("yes")
    rows = [
        [check, *(_cell(states, check, architecture) for architecture in ARCHITECTURES)] for check in CHECKS
    ]
    manifest = read_manifest(ROOT / "weights_manifest.json")
    blocks = [
        INTRODUCTION,
        f"torch {torch.__version__}, Python {platform.python_version()}, on a CPU: {passed} of {len(asked)} pass.\n",
        wide(table(("check", *ARCHITECTURES), rows)) + "\n",
        *([_wrong(details)] if details else []),
        COUNTS,
        counts(manifest, ARCHITECTURES, get_architecture) + "\n",
    ]
    return "\n".join(blocks)


def _cell(states: Mapping[Case, State], check: str, architecture: str) -> str:
    on, off = (states.get(Case(check, architecture, engine), "not run") for engine in (True, False))
    return on if on == off and on in ("-", "not run") else f"{on} / {off}"


def _wrong(details: Mapping[Case, str]) -> str:
    lines = [
        f"- {_label(case)}: `{' '.join(text.replace('`', '').split())}`" for case, text in details.items()
    ]
    return "\n".join(("### What is wrong", "", *lines, ""))


def kept(text: str, run_again: set[str]) -> tuple[dict[Case, State], dict[Case, str]]:
    """Cells and failures of a page that was written before, but for these architectures'."""
    states: dict[Case, State] = {}
    columns: list[str] = []
    for line in text.splitlines():
        first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if line.startswith("| check |"):
            columns = cells
        if not line.startswith("|") or first not in CHECKS:
            continue
        for architecture, cell in zip(columns, cells, strict=True):
            both = cell.split(" / ") if " / " in cell else [cell, cell]
            for engine, one in zip((True, False), both, strict=True):
                if architecture in ARCHITECTURES and architecture not in run_again and one != "not run":
                    states[Case(first, architecture, engine)] = one  # type: ignore[assignment]
    labels = dict(re.findall(r"^- (.+?, engine o(?:n|ff)): `(.*)`$", text, re.MULTILINE))
    wrong = {case: labels.get(_label(case), "") for case, cell in states.items() if cell == "**wrong**"}
    return states, wrong


def counts(manifest: Manifest, names: Sequence[str], architectures: Callable[[str], Architecture]) -> str:
    """The table of parameters of every preset with a published figure or count.

    Args:
        manifest: The models, with the parameters that they are built with.
        names: The architectures.
        architectures: From a name to what its plugin says.
    """
    rows = []
    for name in names:
        for preset, described in architectures(name).presets.items():
            entry = manifest.default(f"{name}-{preset}")
            if entry is None or (described.parameters is None and described.published is None):
                continue
            apart = "-" if described.parameters is None else f"{entry.num_params - described.parameters:+,}"
            rows.append(
                (
                    f"[`{entry.name}`](models/{entry.name}.md)",
                    count(entry.num_params),
                    "not published" if described.parameters is None else count(described.parameters),
                    "0" if apart == "+0" else apart,
                    described.parameters_note or "-",
                )
            )
    return wide(table(("model", "built", "published", "difference", "source, and why it differs"), rows))


if __name__ == "__main__":
    main()
