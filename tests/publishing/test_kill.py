"""Killed with SIGKILL at random moments, inside writes too, a training ends with the very same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_kills_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.kills", str(tmp_path / "runs"), "8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    print(done.stdout)
    assert len(rows) == 8
    assert all(row["resumed"] and row["identical"] for row in rows)
    inside = [row for row in rows if row["moment"] == "inside a write"]
    assert all(row["killed"] and row["partial_files"] for row in inside)
    assert sum(row["killed"] for row in rows) >= 5
