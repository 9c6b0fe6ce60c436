"""The benchmark of a GPU, on the CPU: its order and limits, the ways to run a flow, and its half of the page."""

from __future__ import annotations

import contextlib
import gc
import json
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks import captured, cuda, gpu_page, items, timing
from benchmarks.__main__ import main as command
from benchmarks.interleave import Measured
from benchmarks.items import Item, measure_items
from benchmarks.workloads import BFLOAT16, TASKS, Task, Workload, build, coupling_networks
from tools.cuda import page

LABELS = list(cuda.workloads("cpu", False))
FIRST_TASKS = ("train", BFLOAT16, "log_prob", "sample")
TINY = Workload(model="glow-tiny", batch=2)


class Clock:
    """Stands for the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def run(seconds: float = 1.0) -> dict[str, Any]:
    return {"seconds": seconds, "before": 0, "peak": 2**20}


def row(subject: str, seconds: float | None, task: str = "train", workload: str = "glow") -> dict[str, Any]:
    known = {"workload": workload, "subject": subject, "task": task}
    if seconds is None:
        return known | {"error": "why not"}
    return known | {
        "error": None,
        "note": None,
        "seconds": seconds,
        "per_second": 64 / seconds,
        "peak": 2**21,
    }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(cuda, "time", found)
    monkeypatch.setattr(items, "time", found)
    return found


def slow(clock: Clock, late: Callable[[Item], bool], starting: float = 12.0) -> Callable[..., items.Found]:
    """Stands for a process: each item takes three seconds, those that are late take all they may and end it."""

    def one(_: Workload, left: list[Item], each: float, until: float, __: Any) -> items.Found:
        found: items.Found = {}
        clock.now = min(clock.now + starting, until)
        for item in left:
            seconds = min(each if late(item) else 3.0, until - clock.now)
            if seconds <= 0:
                break
            clock.now += seconds
            ended = seconds < 3.0 or late(item)
            found[item] = Measured([] if ended else [run()], "not done" if ended else None)
            if ended:
                break
        return found

    return one


@pytest.mark.parametrize(
    "late",
    [
        lambda item: item.subject not in cuda.FIRST,
        lambda item: item.subject not in cuda.FIRST or item.task == "sample",
    ],
    ids=["others", "others and sampling"],
)
def test_every_workload_gets_its_first_subjects_within_the_budget(
    late: Callable[[Item], bool], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "one_process", slow(clock, late))
    monkeypatch.setattr(cuda, "importable", lambda _: True)
    began = clock.now
    rows = list(cuda.measure("cuda", 1, False, began + 60 * cuda.MINUTES))
    assert clock.now <= began + 60 * cuda.MINUTES
    measured = {(r["workload"], r["subject"], r["task"]) for r in rows if r["error"] is None}
    for label in LABELS:
        for task in ("train", BFLOAT16, "log_prob"):
            assert {(label, who, task) for who in ("floor", "plain", "engine")} <= measured
    assert len(rows) == len({(r["workload"], r["subject"], r["task"]) for r in rows})
    subjects = [r["subject"] for r in rows]
    assert subjects.index("normflows") > max(i for i, s in enumerate(subjects) if s in ("floor", "engine"))
    assert set(subjects[-len(LABELS) * len(TASKS) :]) == {"torch.compile"}
    assert list(dict.fromkeys(r["workload"] for r in rows)) == LABELS
    assert ["64" in LABELS[0], "512" in LABELS[1]] == [True, True]


def test_nothing_is_tried_twice_and_all_after_a_failure_is(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[list[Item]] = []
    one = slow(clock, lambda item: item.task == "log_prob")

    def noted(workload: Workload, left: list[Item], *rest: Any) -> items.Found:
        starts.append(left)
        return one(workload, left, *rest)

    monkeypatch.setattr(items, "one_process", noted)
    three = [Item("graphs", task) for task in TASKS]
    found = measure_items(TINY, three, 30.0, clock.now + 100, repeats=1)
    assert starts == [three, three[2:]]
    assert [bool(found[item].runs) for item in three] == [True, False, True]
    assert measure_items(TINY, three, 30.0, clock.now, repeats=1)[three[0]].error == "no time was left"


class Scripted:
    """A worker that gives these answers, and then waits until it is killed."""

    answers: list[Any]

    def __init__(self, _: Any) -> None:
        self.left, self.killed = iter(self.answers), False

    def answer(self) -> Any:
        for found in self.left:
            return found
        while not self.killed:
            time.sleep(0.01)
        return None

    def kill(self) -> None:
        self.killed = True

    def last_words(self) -> str:
        return "killed"

    def end(self) -> None:
        assert self.killed


def test_the_runs_of_one_that_was_ended_count(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [[{"item": 0} | run(3.0)], [{"item": 0} | run(2.0)]]
    monkeypatch.setattr(items, "Worker", type("Two", (Scripted,), {"answers": [[], *made]}))
    item = Item("plain", "sample")
    found = measure_items(TINY, [item], 0.3, time.monotonic() + 100, repeats=9)[item]
    assert (found.seconds, found.error) == (2.0, "not done after 0 s")
    written = cuda._row(cuda.Job("tiny", TINY, (item,)), item, found)
    assert (written["error"], written["note"], written["per_second"], written["runs"]) == (
        None,
        "not done after 0 s",
        1.0,
        2,
    )
    assert "| 1.0 | - | - | 1 | not done after 0 s |" in gpu_page.speed([written])


def test_one_that_never_starts_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "Worker", type("Never", (Scripted,), {"answers": []}))
    monkeypatch.setattr(items, "START", 0.05)
    several = [Item("plain", task) for task in TASKS]
    found = measure_items(TINY, several, 9.0, time.monotonic() + 100, repeats=1)
    assert {m.error for m in found.values()} == {"not done after 0 s"}


def test_the_workloads_of_the_comparison_have_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    able = {label: cuda.able_peers(workload) for label, workload in cuda.workloads("cuda", False).items()}
    assert list(able.values()) == [
        *[("normflows", "nflows", "FrEIA")] * 2,
        ("normflows", "nflows"),
        (),
        (),
        (),
    ]
    # Whether they are there or not, they are in the plan, and one that is not there is named.
    monkeypatch.setattr(cuda, "importable", lambda name: name != "nflows")
    monkeypatch.setattr(
        cuda, "measure_items", lambda _, several, *__, **___: dict.fromkeys(several, Measured([run()]))
    )
    rows = list(cuda.measure("cuda", 1, False, time.monotonic() + 100))
    errors = {r["error"] for r in rows if r["subject"] == "nflows"}
    assert errors == {cuda.MISSING}
    assert all(r["error"] is None for r in rows if r["subject"] in ("normflows", "FrEIA"))
    assert f"{LABELS[0]}: nflows: {cuda.MISSING}" in capsys.readouterr().err
    assert f"| nflows | - | - | - | - | {cuda.MISSING} |" in gpu_page.speed(rows)


def test_what_cannot_be_unrolled_is_not_tried() -> None:
    plan = [job for part in cuda.jobs(cuda.workloads("cuda", False)) for job in part]
    refused = {
        (job.workload.architecture, item.subject, item.task)
        for job in plan
        for item in job.items
        if (cuda.not_to_try(job.workload, item) or "").startswith("not tried: ")
    }
    several = {(model, way, "sample") for model in ("tarflow", "flowpp") for way in ("graphs", "compiled")}
    assert refused == several | {("tarflow", "floor", "sample")}


def test_every_measured_architecture_has_a_floor() -> None:
    for name in ("glow", "realnvp", "flowpp", "tarflow"):
        assert coupling_networks(Workload(model=f"{name}-tiny", batch=2)), name


class Graph:
    """Stands for a CUDA graph: it runs nothing, and holds nothing of what it has seen."""

    def replay(self) -> None:
        return None


@pytest.fixture
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CUDA's streams and graphs do nothing; the libraries of linear algebra are noted."""
    preferred = ["default"]

    def prefer(name: str | None = None) -> str:
        if name is not None:
            preferred.append(name)
        return preferred[-1]

    @contextlib.contextmanager
    def capture(_: Graph) -> Iterator[None]:
        preferred.append("captured with " + preferred[-1])
        yield
        preferred.pop(-2)

    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.backends.cuda, "preferred_linalg_library", prefer)
    return preferred


@pytest.mark.parametrize("task", ["log_prob", "sample"])
def test_a_graph_has_what_it_works_on_for_as_long_as_it_is_there(
    task: Task, no_graphs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[Any]] = []

    def built(workload: Workload) -> Any:
        flow, images = build(workload)
        seen.append(weakref.ref(flow))
        return flow, images

    monkeypatch.setattr(captured, "build", built)
    replay = captured.graph_task(TINY, task)
    gc.collect()
    replay()
    assert seen[0]() is not None
    assert "captured with cusolver" in no_graphs
    assert no_graphs[-1] == "default"
    del replay
    gc.collect()
    assert seen[0]() is None


def test_nothing_is_inverted_while_sampling_is_captured(
    no_graphs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    inverse = torch.linalg.inv
    monkeypatch.setattr(
        torch.linalg, "inv", lambda a: calls.append("captured" in no_graphs[-1]) or inverse(a)
    )
    captured.graph_task(TINY, "sample")
    assert calls
    assert not any(calls)


def test_runs_are_warmed_up_and_of_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    # It takes time, too, and warms nothing.
    monkeypatch.setattr(timing, "free", lambda _: None)
    ends: list[float] = []

    def call() -> None:
        time.sleep(0.01)
        ends.append(time.perf_counter())

    found = list(timing.runs(call, {"repeats": 2, "together": 0.1}, on_cuda=False))
    assert len(found) == 2
    assert all(1 < made["calls"] <= 10 and made["seconds"] >= 0.01 for made in found)
    # The first call is none of the warming up, which ends before the calls that are timed.
    assert ends[-sum(made["calls"] for made in found) - 1] - ends[0] >= 0.5


def test_a_model_is_freed_before_the_next_is_made_and_a_failure_ends_the_process() -> None:
    class Model:
        def __init__(self, name: str) -> None:
            self.own, self.name = self, name

        def __call__(self) -> None:
            if self.name == "bad":
                raise RuntimeError("no capture\nand more")

    models: list[weakref.ref[Model]] = []

    def prepare(spec: dict[str, Any]) -> Model:
        assert all(model() is None for model in models)
        made = Model(spec["subject"])
        models.append(weakref.ref(made))
        return made

    answers: list[dict[str, Any]] = []
    named = [[name, "train"] for name in ("one", "two", "bad", "never")]
    spec = {"items": named, "workload": {"device": "cpu"}, "repeats": 1, "warm_seconds": 0, "together": 0}
    timing.answer_items(spec, prepare, answers.extend)
    assert [(a["item"], a.get("done"), a.get("error")) for a in answers] == [
        (0, None, None),
        (0, True, None),
        (1, None, None),
        (1, True, None),
        (2, None, "RuntimeError: no capture"),
    ]


def test_a_peak_on_cuda_is_what_was_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("empty_cache", "synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: done.append(name))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 7)
    spec = {"repeats": 1, "warm_seconds": 0, "together": 0}
    (found,) = timing.runs(lambda: done.append("run"), spec, on_cuda=True)
    assert found["peak"] == 7
    # What the first call, which captures or compiles, took is given back before the peak counts.
    assert done[:4] == ["run", "empty_cache", "synchronize", "reset_peak_memory_stats"]


def test_the_page_says_what_is_reached_and_what_is_best() -> None:
    rows = [
        *[row("floor", 1.0), row("plain", 2.0), row("engine", 1.2), row("CUDA graphs", 1.0)],
        *[row("normflows", 2.4), row("nflows", 1.92), row("FrEIA", None)],
        *[row("floor", 1.0, task="log_prob"), row("engine", 1.5, task="log_prob")],
        *[row("floor", 1.0, workload="tarflow"), row("engine", 1.4, workload="tarflow")],
    ]
    found = {(r["workload"], r["subject"], r["task"]): r for r in gpu_page.compared(rows)}
    engine = found["glow", "engine", "train"]
    assert engine["of_floor"] == pytest.approx(1.2)
    assert engine["of_peer"] == pytest.approx(1.6)
    assert found["glow", "engine", "log_prob"]["of_peer"] is None
    written = gpu_page.speed(rows)
    verdict = "glow: 1.60 times the fastest peer, nflows (not measured: FrEIA): 1.5 is reached"
    assert f"- {verdict}; 1.20 times the floor: 1.3 is reached.\n" in written
    assert "- tarflow: no peer can express it; 1.40 times the floor: 1.3 is not reached." in written
    assert "glow, train: CUDA graphs is best, 20 % faster than the engine, which is the default." in written
    assert "| glow | train | CUDA graphs | 1000.00 |" in written
    assert "| glow | train | engine | 53.3 | 1.20 | 1.60 | 2 |  |" in written
    close = gpu_page.best([row("engine", 1.04), row("plain", 1.0)])
    assert "Nothing that was measured is more than 5 % faster than the default." in close
    assert "Nothing was measured beside the default." in gpu_page.best([row("engine", 1.0)])


def test_the_command_writes_its_half_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page.add(tmp_path, "checks", [{"check": "some", "outcome": "ok", "detail": "", "seconds": 1.0}], "cpu")
    # Peers and what is compiled are measured in the same way.
    plan = cuda.jobs
    monkeypatch.setattr(cuda, "jobs", lambda found: [plan(found)[0], plan(found)[2]])
    arguments = ["--gpu-page", "--smallest", "--repeats", "1"]
    done = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    written = (tmp_path / "cuda.md").read_text()
    assert "| some | ok |" in written
    rows = json.loads((tmp_path / "cuda.json").read_text())["speed"]["rows"]
    measured = [(r["subject"], r["task"]) for r in rows if r["subject"] != "CUDA graphs"]
    assert measured == [(who, task) for task in FIRST_TASKS for who in ("floor", "plain", "engine")]
    assert all(r["error"] is None and r["of_floor"] > 0 for r in rows if r["subject"] != "CUDA graphs")
    assert {r["error"] for r in rows if r["subject"] == "CUDA graphs"} == {
        "not tried: there are CUDA graphs on CUDA alone"
    }
    refused = CliRunner().invoke(command, arguments)
    assert refused.exit_code == 2
    assert "name another folder" in refused.output
