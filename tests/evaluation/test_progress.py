"""Progress: lines where there is no terminal, and nothing that a broken stderr could stop."""

from __future__ import annotations

import io
import sys

import pytest

from flowzoo.evaluation import progress
from flowzoo.evaluation.progress import Bar, write_line


def advance(monkeypatch: pytest.MonkeyPatch, *, shown: bool) -> None:
    """Six steps of a minute each, but for the first two."""
    clock = iter([0.0, 1.0, 2.0, 60.0, 120.0, 180.0, 240.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    bar = Bar(10, 4, shown=shown)
    for step in range(6):
        bar.advance(1, bpd=f"{step}.5")
    monkeypatch.undo()
    bar.close()


def test_a_line_every_so_often(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    advance(monkeypatch, shown=True)
    expected = ["step 7/10, bpd 2.5", "step 8/10, bpd 3.5", "step 9/10, bpd 4.5", "step 10/10, bpd 5.5"]
    assert capsys.readouterr().err.splitlines() == expected


def test_nothing_where_nothing_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    advance(monkeypatch, shown=False)
    assert capsys.readouterr().err == ""


class Full(io.StringIO):
    """A stream whose disk is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, Full()], ids=["closed", "full"])
def test_a_stream_that_cannot_be_written_stops_nothing(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    write_line("lost")
    bar = Bar(1)
    bar.advance(1, bpd="1")
    bar.close()
