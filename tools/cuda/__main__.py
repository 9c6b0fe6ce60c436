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
from pathlib import Path
from typing import Any

import click

from tools.cuda.on_path import plugins_on_path

NAMES = (
    "conformance",
    "tiny_models",
    "bits_of_shipped_models",
    "keyed_figure",
    "exact_round_trip",
    "resumes",
    "not_deterministic",
    "bfloat16",
    "two_processes",
    "data_ahead",
    "out_of_memory",
    "memory_modes",
    "host_waits",
)
"""All checks, in the order in which they run."""


@click.command()
@click.argument("names", nargs=-1, metavar="[CHECK]...")
@click.option("--device", default="cuda", show_default=True, help="Where to check; cpu to try the checks.")
@click.option("--smallest", is_flag=True, help="The smallest form of every check, to see that they work.")
@click.option("--minutes", default=9.0, show_default=True, help="No check begins after that.")
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
        click.echo(f"skipped: {reason}", err=True)
        return
    with plugins_on_path():
        from tools.cuda.page import DOCS, add
        from tools.cuda.settings import Settings

        settings = Settings(device, smallest)
        rows = []
        for row in results(settings, names or NAMES, time.monotonic() + 60 * minutes):
            rows.append(row)
            click.echo(
                f"{row['outcome']:8} {row['check']}: {row['detail']} ({row['seconds']:.1f} s)", err=True
            )
        folder = out or (DOCS if settings.is_cuda and not names else None)
        if folder is not None:
            add(folder, "checks", rows, device)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    wrong = sum(row["outcome"] == "WRONG" for row in rows)
    if wrong:
        raise click.ClickException(f"{wrong} of {len(rows)} checks are not as they should be.")


def lacking(device: str) -> str | None:
    """Why nothing can be checked on a device, in one line; None if it is there."""
    import torch

    if device.partition(":")[0] != "cuda" or torch.cuda.is_available():
        return None
    return (
        f"PyTorch {torch.__version__} sees no CUDA device here. Run this on a machine with an NVIDIA GPU and a PyTorch "
        "built for CUDA; --device cpu tries the checks themselves."
    )


def results(settings: Any, names: tuple[str, ...], deadline: float) -> Iterator[dict[str, Any]]:
    """The outcome of each check: ``ok``, ``WRONG`` or ``skipped``, with a detail and seconds."""
    import torch

    from tools.cuda import numbers, trainings
    from tools.cuda.settings import Skipped

    # What is compared with the CPU is compared in full float32.
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    # Some kernels are deterministic only with this, and only if it is set before they are first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for name in names:
        check = getattr(numbers, name, None) or getattr(trainings, name)
        began = time.monotonic()
        if began > deadline:
            yield {"check": name, "outcome": "skipped", "detail": "no time was left", "seconds": 0.0}
            continue
        try:
            outcome, detail = "ok", check(settings)
        except Skipped as reason:
            outcome, detail = "skipped", str(reason)
        except Exception as error:  # noqa: BLE001 - a check that fails does not stop the others
            traceback.print_exc(file=sys.stderr)
            outcome, detail = "WRONG", f"{type(error).__name__}: {' '.join(str(error).split())}"
        yield {"check": name, "outcome": outcome, "detail": detail, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    main()
