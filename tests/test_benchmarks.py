"""The benchmark runs from end to end on its smallest workloads; what it measures is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import SECTIONS
from benchmarks.numerics import mixture
from benchmarks.report import RENDERERS
from benchmarks.sections import fitted_exponent
from benchmarks.workloads import TASKS, Workload, floor_task, flow_task, glow

ROOT = Path(__file__).resolve().parent.parent
WORKLOADS = [glow(1, 8, 8, levels=2, batch=2), Workload(model="nice-tiny", batch=2)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.model)
def test_floor_and_flow_run_every_task(workload: Workload, task: str) -> None:
    for make in (floor_task, flow_task):
        run = make(workload, task)  # type: ignore[arg-type]
        run()
        run()


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_mixture_is_inverted(direction: str) -> None:
    # The untrained coupling meets values around a thousand.
    assert mixture("flowpp-tiny", 2, direction)() < 1e-2


def test_the_command_writes_numbers_and_a_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "drift", "--smallest", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    results = json.loads((tmp_path / "benchmarks.json").read_text())
    assert results["drift"]["couplings"] == 4
    assert results["drift"]["gradient_invertible"] < 1e-3
    assert "| gradient invertible |" in (tmp_path / "benchmarks.md").read_text()


def test_every_section_has_its_part_of_the_page() -> None:
    assert SECTIONS.keys() == RENDERERS.keys()


def test_memory_columns_belong_to_their_modes() -> None:
    # In any order: JSON written by others may be sorted.
    cells = {m: {"step_mib": i, "time": i} for i, m in enumerate(("checkpoint", "invertible", "store"))}
    result = {"by_depth": {"16": cells, "8": cells}, "by_size": {}, "growth": 0.0, "growth_of_all": 0.0}
    text = RENDERERS["memory"](result)
    assert "| 8 | 2.0 | 2.00 | 0.0 | 0.00 | 1.0 | 1.00 |\n| 16 |" in text


def test_a_power_law_is_fitted_exactly() -> None:
    assert fitted_exponent({1: 3.0, 2: 12.0, 8: 192.0}) == pytest.approx(2.0)
