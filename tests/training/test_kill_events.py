"""Killed before an event of the file system, a run with one checkpoint loses nothing and goes on to the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_kills_at_events_of_the_file_system(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training_kills", str(tmp_path / "runs"), "3", "8"]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) >= 7
    for row in rows:
        assert row["killed"]
        assert row["kept"]
        assert row["resumed"]
        assert row["identical"]
        assert row["rows"]
        assert row["leftovers"] == 0
