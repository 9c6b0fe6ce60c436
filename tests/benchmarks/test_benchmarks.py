"""The benchmark runs from end to end on its smallest workloads; what it measures is nobody's business here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import comparison, contention, families, workloads
from benchmarks.__main__ import SECTIONS, main
from benchmarks.interleave import Measured, Spec
from benchmarks.numerics import mixture
from benchmarks.plots import draw
from benchmarks.report import RENDERERS, page
from benchmarks.sections import fitted_exponent
from benchmarks.workloads import (
    BFLOAT16,
    FROZEN,
    HELD,
    TASKS,
    Run,
    Task,
    Workload,
    build,
    coupling_networks,
    floor_task,
    flow_task,
    glow,
    plain_task,
)

ROOT = Path(__file__).resolve().parents[2]
WORKLOADS = [glow(1, 8, 8, levels=2, batch=2), Workload(model="nice-tiny", batch=2)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.model)
def test_floor_and_flow_run_every_task(workload: Workload, task: str) -> None:
    for make in (floor_task, flow_task):
        run = make(workload, task)  # type: ignore[arg-type]
        run()
        run()


@pytest.mark.parametrize("task", [FROZEN, HELD])
def test_evaluations_are_frozen_and_hold_gradients_where_they_say_so(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, images = build(WORKLOADS[0])
    monkeypatch.setattr(workloads, "build", lambda _: (flow, images))
    run = flow_task(WORKLOADS[0], task)
    run()
    assert flow.engine._frozen
    assert all((p.grad is not None) == (task == HELD) for p in flow.parameters())


@pytest.mark.parametrize("make", [floor_task, flow_task, plain_task])
@pytest.mark.parametrize("task", ["train", BFLOAT16])
def test_networks_train_in_the_dtype_that_was_asked_for(make: Callable[..., Run], task: Task) -> None:
    run = make(WORKLOADS[0], task)
    seen: set[torch.dtype] = set()

    class Convolutions(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "convolution" in str(func):
                seen.update(arg.dtype for arg in args if isinstance(arg, torch.Tensor))
            return func(*args, **(kwargs or {}))

    with Convolutions():
        run()
    # Priors are no networks of couplings, and stay as they are.
    assert (torch.bfloat16 in seen) == (task == BFLOAT16)
    assert make is not floor_task or len(seen) == 1


def test_workloads_are_chosen_by_a_part_of_their_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def compared(specs: dict[str, Spec], repeats: int, starts: int) -> dict[str, Measured]:
        seen.append(specs)
        run = {"seconds": 1.0}
        return {
            name: Measured([run | {"task": task} for task in spec["tasks"]]) for name, spec in specs.items()
        }

    monkeypatch.setattr(comparison, "compare", compared)
    arguments = ["presets", "--smallest", "--no-peers", "--out", str(tmp_path)]
    for only in ("flowpp", "nice-tiny, G"):
        assert CliRunner().invoke(main, [*arguments, "--only", only], catch_exceptions=False).exit_code == 0
    assert [set(specs) for specs in seen] == [{"floor", "flowzoo", "plain"}] * 2
    rows = json.loads((tmp_path / "benchmarks.json").read_text())["presets"]["rows"]
    assert [name for name in rows if name.endswith("train")] == [
        "flowpp-tiny: train",
        "nice-tiny, Gaussian base: train",
    ]
    assert rows["flowpp-tiny: log_prob"]["ratios"]["flowzoo, frozen, gradients held"] == 1
    wrong = CliRunner().invoke(main, [*arguments, "--only", "no such"])
    assert wrong.exit_code == 2
    assert "flowpp-tiny" in wrong.output


def test_later_flows_and_loops_are_relative_to_flowzoo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compared(specs: dict[str, Spec], *_: int) -> dict[str, Measured]:
        return {
            name: Measured([{"task": t, "seconds": 2.0 if name == "flowzoo" else 3.0} for t in spec["tasks"]])
            for name, spec in specs.items()
        }

    monkeypatch.setattr(families, "compare", compared)
    arguments = ["families", "loops", "--smallest", "--out", str(tmp_path)]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
    results = json.loads((tmp_path / "benchmarks.json").read_text())
    rows = results["families"]["rows"]
    assert rows["MAF, tiny: sample"]["ratios"] == {"flowzoo": 1, "normflows": 1.5, "nflows": 1.5, "zuko": 1.5}
    assert set(rows["FFJORD, tiny images: train"]["ratios"]) == {"flowzoo", "torchdiffeq"}
    assert all(row["ratios"] == {"flowzoo": 1, "loop": 1.5} for row in results["loops"]["rows"].values())
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| NAF, tiny: train | 1.00 |" in page
    assert "UMNNMAFFlow" in page


def test_the_floor_of_sampling_has_no_dequantization() -> None:
    workload = Workload(model="flowpp-tiny", batch=2)
    without = Workload(model="flowpp-tiny", batch=2, config={"dequantization": "uniform"})
    assert len(coupling_networks(workload, "sample")) == len(coupling_networks(without))
    assert len(coupling_networks(workload, "train")) > len(coupling_networks(without))


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


def test_sections_that_are_not_named_are_kept(tmp_path: Path) -> None:
    kept = {"rows": {"tiny": {"mib": {"flowzoo": 12.5, "floor": 10.0}, "errors": {}}}}
    data, written = tmp_path / "benchmarks.json", tmp_path / "benchmarks.md"
    data.write_text(json.dumps({"footprint": kept}))
    for arguments in (["costs", "--smallest"], ["--page"]):
        outcome = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path)])
        assert outcome.exit_code == 0, outcome.output
        assert json.loads(data.read_text())["footprint"] == kept
        text = written.read_text()
        assert "| tiny | 10.0 | 12.5 |" in text
        assert "| glow-mnist |" in text
        written.unlink()


@pytest.mark.parametrize(("others", "contended"), [(0.0, False), (1.3, True)])
def test_the_page_says_when_the_clock_on_the_wall_was_disturbed(others: float, contended: bool) -> None:
    machine = {"cpu": "one", "gpu": None, "system": "any", "python": "3", "versions": {}}
    results = {"machine": machine, "data_parallel": {"efficiency": 0.75}, "others": {"data_parallel": others}}
    assert f"held {others:.2f} cores" in page(results, [])
    assert ("Contended" in page(results, [])) == contended


def test_work_of_ones_own_is_no_contention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = tmp_path / "stat"

    def busy(seconds: float) -> None:
        ticks = round(seconds * os.sysconf("SC_CLK_TCK"))
        counters.write_text(f"cpu  {1000 + ticks} 0 0 5000 0 0 0 0 0 0\n")

    monkeypatch.setattr(contention, "STAT", counters)
    busy(0)
    others, began, own = contention.watch(), time.monotonic(), time.process_time()
    while time.process_time() < own + 0.2:
        pass
    # The machine worked for our 0.2 seconds and for 0.3 of somebody else's.
    busy(0.5)
    assert others() == pytest.approx(0.3 / (time.monotonic() - began), rel=0.1)
    counters.unlink()
    assert others() is None


def test_every_plot_is_drawn(tmp_path: Path) -> None:
    modes = {m: {"step_mib": 2.0} for m in ("store", "checkpoint", "invertible")}
    rows = {"Glow: train": {"ratios": {"floor": 1.0, "flowzoo": 1.2, "nflows": 1.5}}}
    sweep = {"relative": {"1": 1.0, "2": 1.9}, "exponent": 0.93}
    results = {
        "memory": {"by_depth": {"8": modes, "16": modes}, "by_size": {"32": modes, "64": modes}},
        "scaling": {f"{task}, threads": sweep for task in ("train", "log_prob")},
        "speed": {"rows": rows},
        "presets": {"rows": rows},
    }
    for name in draw(results, tmp_path):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert {path.stem for path in tmp_path.iterdir()} == set(results)


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
