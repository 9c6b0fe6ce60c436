"""The processes that measure: what they write never stops them, and what they start ends with them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from benchmarks.interleave import Worker

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that every Python process imports first."""
    paths = [str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return tmp_path / "sitecustomize.py"


def spec(subject: str) -> dict[str, object]:
    return {"subject": subject, "arguments": {"components": 2, "elements": 2, "direction": "forward"}}


def test_a_megabyte_on_standard_error_stops_nobody(at_start: Path) -> None:
    at_start.write_text('import sys\nsys.stderr.write(("x" * 1023 + chr(10)) * 1024)\n')
    worker = Worker(spec("logit_cdf"))
    late = threading.Timer(60, worker.kill)
    late.start()
    assert worker.wait()
    worker.run()
    late.cancel()
    worker.end()
    assert worker.measured.error is None
    assert len(worker.measured.runs) == 1


def test_the_last_line_says_why_it_ended(at_start: Path) -> None:
    at_start.write_text('import sys\nsys.stderr.write("warning" + chr(10))\n')
    worker = Worker(spec("no such"))
    assert not worker.wait()
    worker.end()
    assert worker.measured.error == "KeyError: 'no such'"


def test_what_it_started_ends_with_it(at_start: Path, tmp_path: Path) -> None:
    """A child that holds the other end of its standard output would keep the reader waiting."""
    at_start.write_text(
        "import os, subprocess, sys\n"
        'if "CHILD" not in os.environ:\n'
        '    subprocess.Popen(["sleep", "600"])\n'
        '    os.environ["CHILD"] = "1"\n'
    )
    worker = Worker(spec("logit_cdf"))
    assert worker.wait()
    worker.kill()
    assert worker.answer() is None
    assert "-9" in worker.last_words()
    worker.end()
