"""Writes ``docs/compatibility.md``: ``python -m tools.compatibility [--fast] [--jobs N] [CAPABILITY...]``.

Every capability of :mod:`flowzoo.testing.capabilities` is tried on the tiny model of each architecture, with the
engine on and off. Where some are named only these are tried, and the page keeps its other rows. The command fails if
any is not as it should be; the page is written all the same.
"""

from __future__ import annotations

import multiprocessing
import platform
import re
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click

from flowzoo.testing.capabilities import CAPABILITIES, Outcome, try_capability

PAGE = Path(__file__).resolve().parent.parent / "docs/compatibility.md"
ARCHITECTURES = ("nice", "realnvp", "glow", "flowpp")

INTRODUCTION = """# A flow is an ordinary torch module

<!-- Written by `python -m tools.compatibility`; do not edit. -->

What a user of plain PyTorch expects of any module, tried on the tiny model of each architecture, with the engine on and
off (`flowzoo.engine.disabled()`). Results are compared with finite differences, or with the same model computed plainly
in float64 (in float32 where a compiler or lower precision is at work). `flowzoo/testing/capabilities` holds the checks.
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
@click.option("--jobs", default=1, help="Processes at a time.")
def main(names: tuple[str, ...], fast: bool, jobs: int) -> None:
    """Tries every capability and writes the page."""
    unknown = [name for name in names if name not in CAPABILITIES]
    if unknown:
        raise click.UsageError(f"no capability {unknown[0]!r}; there are: {', '.join(CAPABILITIES)}.")
    outcomes = kept(PAGE.read_text(), set(names)) if names else {}
    cases = [
        Case(capability, architecture, engine)
        for capability, entry in CAPABILITIES.items()
        if not (fast and entry.slow) and (not names or capability in names)
        for architecture in ARCHITECTURES
        for engine in (True, False)
    ]
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

    passed = sum(outcome.passed for outcome in outcomes.values())
    lines = [INTRODUCTION, f"torch {torch.__version__}, Python {platform.python_version()}, on a CPU: "]
    lines[-1] += f"{passed} of {len(outcomes)} are as they should be."
    header = [f"{architecture}, {engine}" for architecture in ARCHITECTURES for engine in ("on", "off")]
    lines += ["", f"| capability | {' | '.join(header)} |", "|---|" + "---|" * len(header)]
    for capability in CAPABILITIES:
        cells = [
            _cell(outcomes.get(Case(capability, architecture, engine)))
            for architecture in ARCHITECTURES
            for engine in (True, False)
        ]
        lines.append(f"| {capability} | {' | '.join(cells)} |")
    wrong = [(case, outcome) for case, outcome in outcomes.items() if not outcome.passed]
    if wrong:
        lines += ["", "## What is wrong", ""]
        lines += [f"- {_label(case)}: `{outcome.detail.replace('`', '')}`" for case, outcome in wrong]
    return "\n".join(lines) + "\n"


def kept(text: str, tried_again: set[str]) -> dict[Case, Outcome]:
    """The outcomes of a page that was written before, but for these capabilities; details of errors as it has them."""
    found = {}
    details = dict(re.findall(r"^- (.+?, engine o(?:n|ff)): `(.*)`$", text, re.MULTILINE))
    for line in text.splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if not line.startswith("|") or name not in CAPABILITIES or name in tried_again:
            continue
        columns = [(architecture, engine) for architecture in ARCHITECTURES for engine in (True, False)]
        for (architecture, engine), cell in zip(columns, cells, strict=True):
            case = Case(name, architecture, engine)
            if cell == "**wrong**":
                found[case] = Outcome(name, False, details.get(_label(case), ""))
            elif cell != "not tried":
                found[case] = Outcome(name, True, "refused in one line" if cell == "refused" else "")
    return found


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not tried"
    if not outcome.passed:
        return "**wrong**"
    return "refused" if "refused in one line" in outcome.detail else "yes"


if __name__ == "__main__":
    main()
