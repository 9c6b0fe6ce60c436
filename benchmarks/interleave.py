"""Comparisons: every subject in its own process, one run of each in turn, so that all see the same machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any

from benchmarks.worker import MARK

Spec = dict[str, Any]


@dataclass
class Measured:
    """The runs of one subject; ``error`` says why there are none."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    def of(self, task: str) -> Measured:
        """Only the runs of one task."""
        return Measured([run for run in self.runs if run["task"] == task], self.error)

    @property
    def seconds(self) -> float:
        """The fastest run: what disturbs a run only ever lengthens it."""
        return min((run["seconds"] for run in self.runs), default=float("nan"))

    @property
    def extra_bytes(self) -> int:
        """Peak memory of a run above what the process held before it, the largest of all runs."""
        return max((run["peak"] - run["before"] for run in self.runs), default=0)

    @property
    def peak_bytes(self) -> int:
        """Peak memory of the process during a run."""
        return max((run["peak"] for run in self.runs), default=0)

    @property
    def result(self) -> Any:
        """The result of the last run."""
        return self.runs[-1]["result"] if self.runs else None


class Worker:
    """A process that measures one subject on demand."""

    def __init__(self, spec: Spec) -> None:
        # For peaks large blocks go back to the system when freed, so that a peak is that of live tensors. For times
        # they stay: else the chances of the heap decide who asks for them again, up to a third of the time.
        apart, kept = (2**16, 2**16) if spec.get("memory") else (2**25, 2**31)
        allocator = {"MALLOC_MMAP_THRESHOLD_": str(apart), "MALLOC_TRIM_THRESHOLD_": str(kept)}
        threads = {"OMP_NUM_THREADS": str(spec.get("threads", 1))}
        # A pipe that nobody reads fills up, and whoever writes to it waits for ever.
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        # A group of its own: what it starts, as compilers do, ends with it.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=os.environ | threads | allocator,
            start_new_session=True,
        )
        self.measured = Measured()

    def answer(self) -> list[dict[str, Any]] | None:
        """Waits for its next answer; None if it ended."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                found: list[dict[str, Any]] = json.loads(line.removeprefix(MARK))
                return found
        return None

    def last_words(self) -> str:
        """Why it ended: the last line that it wrote to standard error, or else its status."""
        status = self.process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return lines[-1] if lines else f"ended with status {status}"

    def wait(self) -> bool:
        """Waits until it has answered or ended; True if it answered."""
        answer = self.answer()
        if answer is None:
            self.measured.error = self.last_words()
            return False
        self.measured.runs += answer
        return True

    def run(self) -> None:
        """Has it measured once more."""
        if self.measured.error is None and self.process.stdin is not None:
            self.process.stdin.write("run\n")
            self.process.stdin.flush()
            self.wait()

    def end(self) -> None:
        """Lets it end."""
        self.process.communicate()
        self._said.close()

    def kill(self) -> None:
        """Ends it and all that it has started, now."""
        # Not reaped yet, so that its group is there, also where it has ended.
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def compare(specs: dict[str, Spec], repeats: int, starts: int = 1) -> dict[str, Measured]:
    """Runs every subject ``repeats`` times, in turn, in each of so many processes one after the other.

    Where the memory of a process happens to lie makes it a few percent faster or slower for as long as it lives.
    """
    found = [_started(specs, repeats) for _ in range(starts)]
    return {
        name: Measured(
            [run for each in found for run in each[name].runs],
            next((each[name].error for each in found if each[name].error), None),
        )
        for name in specs
    }


def _started(specs: dict[str, Spec], repeats: int) -> dict[str, Measured]:
    workers = {name: Worker(spec) for name, spec in specs.items()}
    for worker in workers.values():
        worker.wait()
    for _ in range(repeats):
        for worker in workers.values():
            worker.run()
    for worker in workers.values():
        worker.end()
    return {name: worker.measured for name, worker in workers.items()}
