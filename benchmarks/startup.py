"""How long a command takes to be there, as whole processes, and how long a bundled model takes to load."""

from __future__ import annotations

import resource
import subprocess
import sys

from benchmarks.interleave import Spec, compare
from benchmarks.sections import Result, Settings

COMMANDS = {
    "import click": [sys.executable, "-c", "import click"],
    "import flowzoo": [sys.executable, "-c", "import flowzoo"],
    "flowzoo list": [sys.executable, "-m", "flowzoo", "list"],
}


def startup(settings: Settings) -> Result:
    """Processor seconds of whole processes, in turn, relative to ``import click``."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(2 if settings.smallest else 15):
        for name, command in COMMANDS.items():
            times[name].append(_seconds(command))
    best = {name: min(values) for name, values in times.items()}
    return {"ratios": {name: value / best["import click"] for name, value in best.items()}}


def _seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def loading(settings: Settings) -> Result:
    """``flowzoo.load`` of the largest bundled model against hashing and reading its file into a built module."""
    from benchmarks.models import largest_bundled

    found = largest_bundled()
    if found is None:
        return {"error": "no model is bundled with the installed plugins"}
    name, path = found
    specs: dict[str, Spec] = {
        "bare": {"subject": "bare_loading", "arguments": {"name": name, "path": str(path)}},
        "load": {"subject": "loading", "arguments": {"name": name}},
        "build": {"subject": "building", "arguments": {"name": name}},
    }
    measured = compare(specs, settings.repeats)
    bare = measured["bare"]
    split = bare.result or {}
    return {
        "model": name,
        "bytes": path.stat().st_size,
        "ratios": {key: m.seconds / bare.seconds for key, m in measured.items() if m.error is None},
        "split": {key: value / bare.seconds for key, value in split.items()},
        "errors": {key: m.error for key, m in measured.items() if m.error},
    }
