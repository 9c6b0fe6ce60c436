"""``docs/cuda.md``, and the results that it is written from: ``cuda.json`` beside it."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import flowzoo
from benchmarks.gpu_page import speed
from tools.cells import table
from tools.cuda.on_path import ROOT

DOCS = ROOT / "docs"
NOTHING = "# CUDA\n\nnot measured yet\n"
Results = dict[str, Any]


def describe(device: str) -> Results:
    """Card, driver and versions, and today's date."""
    about: Results = {
        "flowzoo": flowzoo.__version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "day": datetime.now(UTC).date().isoformat(),
    }
    if torch.device(device).type != "cuda":
        return {"card": "CPU"} | about
    found = torch.cuda.get_device_properties(torch.device(device))
    card = (
        f"{found.name}, {found.total_memory / 2**30:.0f} GiB, compute capability {found.major}.{found.minor}"
    )
    return {
        "card": card,
        "cards": torch.cuda.device_count(),
        "driver": _driver(),
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
    } | about


def _driver() -> str:
    # The kernel module's own file; torch has no public name for it.
    said = Path("/proc/driver/nvidia/version")
    words = said.read_text().split() if said.exists() else []
    found = next((word for word in words if word[0].isdigit() and "." in word), None)
    return found or _asked_driver() or "unknown"


def _asked_driver() -> str | None:
    """What nvidia-smi says, which is there where a container hides the file."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def add(folder: Path, part: str, content: object, device: str) -> None:
    """Puts one command's results beside the other's and writes the page anew."""
    path = folder / "cuda.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    results[part] = {"machine": describe(device), "rows": content}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    (folder / "cuda.md").write_text(page(results))


def page(results: Mapping[str, Any]) -> str:
    """The page for these results; without any it says that nothing was measured."""
    if not results:
        return NOTHING
    parts = [
        "# CUDA",
        "<!-- Written by `make test-cuda` and `python -m benchmarks --device cuda`; do not edit. -->",
    ]
    if "checks" in results:
        parts += ["## Right", _machine(results["checks"]), _checks(results["checks"]["rows"])]
    if "speed" in results:
        parts += ["## Fast", _machine(results["speed"]), speed(results["speed"]["rows"])]
    return "\n\n".join(parts) + "\n"


def _machine(part: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in part["machine"].items()) + "."


def _checks(rows: list[Mapping[str, Any]]) -> str:
    cells = [(row["check"], row["outcome"], row["detail"], f"{row['seconds']:.0f}") for row in rows]
    return table(("check", "outcome", "detail", "s"), cells)
