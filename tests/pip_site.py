"""A directory that a real pip installs projects into, without a network, and commands that see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def pip_install(site: Path, *projects: Path) -> None:
    """Builds and installs projects into a directory; copies of them, so that a build leaves nothing in a checkout."""
    copies = []
    for index, project in enumerate(projects):
        copy = site.parent / f"build-{site.name}-{index}" / project.name
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns("__pycache__"))
        copies.append(copy)
    command = [
        sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps",
        "--no-build-isolation", "--no-index", "--no-compile", "--target", str(site), *map(str, copies),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def run_python(
    site: Path, *arguments: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs this interpreter with the directory on its path and no network."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLOWZOO_", "HF_"))}
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    environment = kept | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def run_flowzoo(
    site: Path, *arguments: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command line with the directory on its path and no network."""
    return run_python(site, "-m", "flowzoo", *arguments, cwd=cwd, **variables)
