"""Writes ``docs/compatibility.md``: ``python -m tools.compatibility [--fast] [--of NAME] [CAPABILITY...]``.

Every capability of :mod:`flowzoo.testing.capabilities` is tried on the tiny model of each architecture, with the
engine on and off. Where capabilities or architectures are named only these are tried, and the page keeps its other
cells. The command fails if any is not as it should be; the page is written all the same.
"""

from __future__ import annotations

import multiprocessing
import platform
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click

from flowzoo.registry import list_architectures
from flowzoo.testing import NotAsked
from flowzoo.testing.capabilities import CAPABILITIES, Outcome, try_capability

PAGE = Path(__file__).resolve().parent.parent / "docs/compatibility.md"
# The four that were here first keep their places; the others follow in the order of the alphabet.
FIRST = ("nice", "realnvp", "glow", "flowpp")
ARCHITECTURES = (*FIRST, *sorted(set(list_architectures()) - set(FIRST)))

INTRODUCTION = """# A flow is an ordinary torch module

<!-- Written by `python -m tools.compatibility`; do not edit. -->

What a user of plain PyTorch expects of any module, tried on the tiny model of each architecture, with the engine on and
off (`flowzoo.engine.disabled()`); a cell with two words says first what happens with it on, and a dash stands where
nothing is asked: integers have no derivatives, and a flow that draws random numbers differs from itself. Results are
compared with finite differences, or with the same model computed plainly in float64 (in float32 where a compiler or
lower precision is at work). `flowzoo/testing/capabilities` holds the checks.
"""


class Case(NamedTuple):
    """A capability of an architecture, with the engine on or off."""

    capability: str
    architecture: str
    engine: bool


def _try(case: Case) -> Outcome:
    import torch

    torch.set_num_threads(1)
    return try_capability(case.architecture, case.capability, engine=case.engine)


@click.command()
@click.argument("names", nargs=-1, metavar="[CAPABILITY]...")
@click.option("--fast", is_flag=True, help="Leave out compilers and other processes.")
@click.option(
    "--of", "chosen", multiple=True, type=click.Choice(ARCHITECTURES), help="Architecture; all without."
)
@click.option("--jobs", default=1, help="Processes at a time.")
def main(names: tuple[str, ...], fast: bool, chosen: tuple[str, ...], jobs: int) -> None:
    """Tries every capability and writes the page."""
    unknown = [name for name in names if name not in CAPABILITIES]
    if unknown:
        raise click.UsageError(f"no capability {unknown[0]!r}; there are: {', '.join(CAPABILITIES)}.")
    cases = [
        Case(capability, architecture, engine)
        for capability, entry in CAPABILITIES.items()
        if not (fast and entry.slow) and (not names or capability in names)
        for architecture in chosen or ARCHITECTURES
        for engine in (True, False)
    ]
    outcomes = kept(PAGE.read_text(), cases)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        for case, outcome in zip(cases, pool.map(_try, cases), strict=True):
            outcomes[case] = outcome
            click.echo(f"{'ok' if outcome.passed else 'WRONG':5} {_label(case)}: {outcome.detail}", err=True)
    PAGE.write_text(page(outcomes))
    wrong = sum(not outcome.passed for outcome in outcomes.values())
    if wrong:
        raise click.ClickException(f"{wrong} of {len(outcomes)} are not as they should be; see {PAGE}.")


def _label(case: Case) -> str:
    return f"{case.capability}, {case.architecture}, engine {'on' if case.engine else 'off'}"


def page(outcomes: Mapping[Case, Outcome]) -> str:
    """The page for these outcomes.

    Args:
        outcomes: What was tried; a capability that is missing was not.
    """
    import torch

    asked = [outcome for outcome in outcomes.values() if not isinstance(outcome.detail, NotAsked)]
    passed = sum(outcome.passed for outcome in asked)
    lines = [INTRODUCTION, f"torch {torch.__version__}, Python {platform.python_version()}, on a CPU: "]
    lines[-1] += f"{passed} of {len(asked)} are as they should be."
    lines += ["", f"| capability | {' | '.join(ARCHITECTURES)} |", "|---|" + "---|" * len(ARCHITECTURES)]
    for capability in CAPABILITIES:
        cells = []
        for architecture in ARCHITECTURES:
            on, off = (
                _cell(outcomes.get(Case(capability, architecture, engine))) for engine in (True, False)
            )
            cells.append(on if on == off else f"{on}, {off}")
        lines.append(f"| {capability} | {' | '.join(cells)} |")
    wrong = [(case, outcome) for case, outcome in outcomes.items() if not outcome.passed]
    if wrong:
        lines += ["", "## What is wrong", ""]
        lines += [f"- {_label(case)}: `{outcome.detail.replace('`', '')}`" for case, outcome in wrong]
    return "\n".join(lines) + "\n"


def kept(text: str, tried_again: Collection[Case]) -> dict[Case, Outcome]:
    """The outcomes of a page that was written before, but for these cases; details of errors as it has them."""
    found = {}
    details = dict(re.findall(r"^- (.+?, engine o(?:n|ff)): `(.*)`$", text, re.MULTILINE))
    columns: list[str] = []
    for line in text.splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if name == "capability":
            columns = cells
        if not line.startswith("|") or name not in CAPABILITIES:
            continue
        for architecture, both in zip(columns, cells, strict=True):
            on, _, off = both.partition(", ")
            for engine, cell in ((True, on), (False, off or on)):
                case = Case(name, architecture, engine)
                if case in tried_again or architecture not in ARCHITECTURES:
                    continue
                if cell == "**wrong**":
                    found[case] = Outcome(name, False, details.get(_label(case), ""))
                elif cell != "not tried":
                    detail = {"refused": "refused in one line", "-": NotAsked("not asked")}.get(cell, "")
                    found[case] = Outcome(name, True, detail)
    return found


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not tried"
    if not outcome.passed:
        return "**wrong**"
    if isinstance(outcome.detail, NotAsked):
        return "-"
    return "refused" if "refused in one line" in outcome.detail else "yes"


if __name__ == "__main__":
    main()
