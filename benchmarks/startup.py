"""How long a command takes to be there, as whole processes, and how long a bundled model takes to load."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.interleave import Spec, compare
from benchmarks.sections import Result, Settings

FLOWZOO = str(Path(sysconfig.get_path("scripts"), "flowzoo"))
COMMANDS: Mapping[str, Sequence[str]] = {
    "import click": (sys.executable, "-c", "import click"),
    "import flowzoo": (sys.executable, "-c", "import flowzoo"),
    "flowzoo list": (FLOWZOO, "list"),
    "flowzoo list --json": (FLOWZOO, "list", "--json"),
    "flowzoo --help": (FLOWZOO, "--help"),
    "flowzoo info glow": (FLOWZOO, "info", "glow"),
    "flowzoo plugins": (FLOWZOO, "plugins"),
}


def startup(settings: Settings) -> Result:
    """Processor seconds of whole processes, in turn, relative to ``import click``.

    Every module of every command comes from bytecode, as an installer leaves it: with PYTHONDONTWRITEBYTECODE
    set, a checkout would be compiled in each process anew, and click, being installed, would not.
    """
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        for command in COMMANDS.values():
            _seconds(command, environment)
        for _ in range(2 if settings.smallest else 25):
            for name, command in COMMANDS.items():
                times[name].append(_seconds(command, environment))
    best = {name: min(values) for name, values in times.items()}
    return {"ratios": {name: value / best["import click"] for name, value in best.items()}}


def _seconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
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
