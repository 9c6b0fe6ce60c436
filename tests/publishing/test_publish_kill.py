"""Killed before its file-system events, ``publish`` breaks nothing, and a second one repairs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


# Every third event of an upload: all of them take a minute, by `python -m tests.publish_kills DIRECTORY hub`.
@pytest.mark.parametrize(("kind", "stride"), [("plugin", 1), ("hub", 3)])
def test_a_kill_at_its_events(kind: str, stride: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.publish_kills", str(tmp_path / "kills"), kind, str(stride)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWZOO_", "HF_"))}
    environment = kept | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) * stride >= 10
    assert all(row["killed"] for row in rows)
    assert [row for row in rows if row["broken"] or row["broken_again"] or row["left"]] == []
    assert all(row["again"] for row in rows)
    for row in rows:
        assert row["revision"] == [row["named"]], "one entry, at the commit that the card on the Hub names"
