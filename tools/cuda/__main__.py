"""``python -m tools.cuda [--device cuda] [--smallest] [CHECK...]``: every check that a GPU is needed for.

It needs a checkout and its path only: plugins are found without being installed. Where there is no CUDA it says so in
one line and ends with exit code 0, and the page stays as it is. With ``--device cpu`` the same checks run on the CPU,
and no page is written unless ``--out`` names a folder for it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tools.cuda.on_path import plugins_on_path

SHARES: dict[str, float] = {
    "tiny_models": 0.08,
    "bits_of_shipped_models": 0.16,
    "keyed_figure": 0.14,
    "exact_round_trip": 0.14,
    "resumes": 0.08,
    "not_deterministic": 0.06,
    "bfloat16": 0.06,
    "two_processes": 0.06,
    "data_ahead": 0.02,
    "out_of_memory": 0.03,
    "memory_modes": 0.03,
    "host_waits": 0.06,
    "conformance": 1.0,
}
"""The share of the time that each check may take, in the order in which they run; the last takes what is left."""

NAMES = tuple(SHARES)
"""All checks."""


@click.command()
@click.argument("names", nargs=-1, metavar="[CHECK]...")
@click.option("--device", default="cuda", show_default=True, help="Where to check; cpu to try the checks.")
@click.option("--smallest", is_flag=True, help="The smallest form of every check, to see that they work.")
@click.option("--minutes", default=9.0, show_default=True, help="In all; each check has its share.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the page; docs/ for a GPU.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(
    names: tuple[str, ...], device: str, smallest: bool, minutes: float, out: Path | None, as_json: bool
) -> None:
    """Checks on a GPU everything that only a GPU can show."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise click.UsageError(f"no check {unknown[0]!r}; there are: {', '.join(NAMES)}.")
    if reason := lacking(device):
        if not device.startswith("cuda"):
            raise click.UsageError(reason)
        click.echo(f"skipped: {reason}", err=True)
        return
    with plugins_on_path():
        from tools.cuda.page import DOCS, add
        from tools.cuda.settings import Settings

        settings = Settings(device, smallest)
        folder = out or (DOCS if settings.is_cuda and not names else None)
        rows = []
        for row in results(settings, names or NAMES, 60 * minutes):
            rows.append(row)
            click.echo(
                f"{row['outcome']:8} {row['check']}: {row['detail']} ({row['seconds']:.1f} s)", err=True
            )
            if folder is not None:
                # After each, so that a run that is cut short has not been for nothing.
                add(folder, "checks", rows, device)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    wrong = sum(row["outcome"] == "WRONG" for row in rows)
    if wrong:
        raise click.ClickException(f"{wrong} of {len(rows)} checks are not as they should be.")


def lacking(device: str) -> str | None:
    """Why nothing can be checked on a device, in one line; None if it is there."""
    from flowzoo.devices import find_device
    from flowzoo.errors import InputError

    try:
        find_device(device, computing=True)
    except InputError as error:
        return " ".join(str(error).split())
    return None


def results(settings: Any, names: tuple[str, ...], seconds: float) -> Iterator[dict[str, Any]]:
    """The outcome of each check: ``ok``, ``WRONG``, ``not done`` or ``skipped``, with a detail and seconds."""
    from tools.cuda import numbers, shipped, trainings
    from tools.cuda.settings import full_float32

    # What is compared with the CPU is compared in full float32.
    full_float32()
    # Some kernels are deterministic only with this, and only if it is set before they are first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deadline = time.monotonic() + seconds
    for name in names:
        check = next(found for m in (numbers, shipped, trainings) if (found := getattr(m, name, None)))
        began = time.monotonic()
        # Asked for by name, they share the time of all.
        share = SHARES[name] / min(1.0, sum(SHARES[other] for other in names))
        outcome, detail = _outcome(check, settings, min(share * seconds, deadline - began))
        yield {"check": name, "outcome": outcome, "detail": detail, "seconds": time.monotonic() - began}


def _outcome(check: Any, settings: Any, seconds: float) -> tuple[str, str]:
    """What became of a check that may take some seconds; what it had found is not lost where it is cut short."""
    from tools.cuda.limit import Late, at_most
    from tools.cuda.settings import Findings, Skipped

    found = Findings()
    if seconds <= 0:
        return "skipped", "no time was left"
    try:
        with at_most(seconds):
            return "ok", check(replace(settings, findings=found))
    except Skipped as reason:
        return "skipped", str(reason)
    except Late:
        late = f"not done after {seconds:.0f} s"
        if found.wrong:
            return "WRONG", "; ".join([*found.wrong, late])
        return "not done", "; ".join([late, *found.details])
    except Exception as error:  # noqa: BLE001 - a check that fails does not stop the others
        traceback.print_exc(file=sys.stderr)
        # A check that breaks off has not said yet what it found before.
        before = [line for line in found.wrong if line not in str(error)]
        return "WRONG", "; ".join([*before, f"{type(error).__name__}: {' '.join(str(error).split())}"])


if __name__ == "__main__":
    main()
