"""The checks of a GPU themselves: in full form on the CPU, what they say of wrong numbers, and their time."""

from __future__ import annotations

import json
import math
import subprocess
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from flowzoo.manifest.read import load_manifests
from tools.cuda import __main__ as command
from tools.cuda import numbers, page, process, shipped, trainings
from tools.cuda.settings import Findings, Settings

# Augmented, estimated, of vectors, and further from float64 than 1e-5 bits/dim.
ONCE_WRONG = ("fvae-mnist", "cdf-points", "nice-cdf-mnist", "residual-moons", "maf-mog-mnist")


def full(*models: str) -> Settings:
    return Settings("cpu", models=models, images=2)


def test_the_full_form_holds_for_the_cpu_against_itself() -> None:
    said = shipped.bits_of_shipped_models(full(*ONCE_WRONG))
    assert all(f"{name} float64 0e+00" in said for name in ONCE_WRONG)
    assert "the CPU itself" in said.split("nice-cdf-mnist")[1].split(";")[0]


def test_figures_of_images_and_vectors_are_the_cpu_s() -> None:
    said = shipped.keyed_figure(full(*ONCE_WRONG[:4]))
    figures = [float(part.split()[1]) for part in said.split("; ")]
    assert len(figures) == 4
    assert all(map(math.isfinite, figures))


def test_round_trips_are_judged_by_what_float32_can() -> None:
    # maf-mog-mnist takes too long for a test.
    said = shipped.exact_round_trip(full(*ONCE_WRONG[:4]))
    assert all(f"{name} 2" in said for name in ONCE_WRONG[:4])
    entries = {entry.name: entry for entry in load_manifests().entries}
    # None of 10,000 lost on record: a few may be on another machine, and the twenty of the smallest form may not.
    assert shipped.allowed_changes(entries["glow-mnist"], 1000) == 3
    assert shipped.allowed_changes(entries["glow-mnist"], 20) == 0
    assert 53 < shipped.allowed_changes(entries["nice-cdf-mnist"], 1000) < 100


def test_bfloat16_compares_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        trainings, "short_training", lambda _, precision: {"float32": 1.0, "bfloat16": 9.0}[precision]
    )
    said = shipped.bfloat16(Settings("cpu", smallest=True))
    assert "of 4 images; short trainings end at 1.0000 and 9.0000 (not compared)" in said
    monkeypatch.setattr(shipped, "in_network_dtype", lambda *given: 1.0 if given[-1] is None else 1.02)
    with pytest.raises(AssertionError, match=r"bfloat16 networks, bits/dim: 2\.0e-02, allowed 1\.0e-02"):
        shipped.bfloat16(Settings("cpu", smallest=True))


def test_all_that_is_wrong_is_named_and_nan_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    nan = torch.tensor([math.nan])
    monkeypatch.setattr(shipped, "answer", lambda *_: (nan, nan))
    with pytest.raises(AssertionError) as caught:
        shipped.bits_of_shipped_models(full("cdf-mnist", "cdf-points"))
    assert all(name in str(caught.value) for name in ("cdf-mnist", "cdf-points"))
    monkeypatch.setattr(shipped, "_each", lambda *_: nan)
    with pytest.raises(AssertionError, match=r"cdf-mnist, float64.*cdf-points, float32"):
        shipped.keyed_figure(full("cdf-mnist", "cdf-points"))
    monkeypatch.setattr(shipped, "comes_back", lambda flow, x: torch.zeros(len(x), dtype=torch.bool))
    with pytest.raises(AssertionError, match=r"cdf-mnist: 2 of 2.*float64.*cdf-points: 2 of 2"):
        shipped.exact_round_trip(full("cdf-mnist", "cdf-points"))


def test_conformance_names_a_fault_without_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def fail(subject: Any) -> str:
        ran.append(subject)
        raise RuntimeError

    monkeypatch.setattr(numbers, "CHECKS", dict.fromkeys((*numbers.ANYWHERE, *numbers.SLOW, "other"), fail))
    monkeypatch.setattr(Settings, "architectures", lambda _: ["glow"])
    with pytest.raises(AssertionError, match=r"glow, other: RuntimeError: ; glow, weights changed count"):
        numbers.conformance(Settings("cpu"))
    assert len(ran) == 3
    assert set(numbers.CHECKS) >= set(numbers.ANYWHERE + numbers.SLOW)


def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float = 1.0) -> list[dict[str, Any]]:
    options = ["--device", "cpu", "--json", "--out", str(tmp_path), "--minutes", str(seconds / 60)]
    done = CliRunner().invoke(command.main, ["tiny_models", "memory_modes", *options])
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_check_that_takes_too_long_is_cut_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = tmp_path / "cuda.json"

    def slow(settings: Settings) -> str:
        settings.findings.details.append("half of it")
        time.sleep(60)
        return ""

    def after(settings: Settings) -> str:
        return f"{len(json.loads(written.read_text())['checks']['rows'])} written before"

    monkeypatch.setattr(numbers, "tiny_models", slow)
    monkeypatch.setattr(trainings, "memory_modes", after)
    rows = results(monkeypatch, tmp_path)
    assert [row["outcome"] for row in rows] == ["not done", "ok"]
    assert rows[0]["detail"] == "not done after 1 s; half of it"
    assert rows[1]["detail"] == "1 written before"


def test_what_was_wrong_before_the_time_was_over_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def slow(settings: Settings) -> str:
        settings.findings.wrong.append("glow is off")
        time.sleep(60)
        return ""

    monkeypatch.setattr(numbers, "tiny_models", slow)
    monkeypatch.setattr(trainings, "memory_modes", lambda _: "")
    rows = results(monkeypatch, tmp_path)
    assert (rows[0]["outcome"], rows[0]["detail"]) == ("WRONG", "glow is off; not done after 1 s")


def test_conformance_takes_the_time_that_is_left() -> None:
    assert command.NAMES[-1] == "conformance"
    assert sum(list(command.SHARES.values())[:-1]) < 1.0


def test_a_card_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert command.lacking("cuda:0") is None
    assert "'cuda:3'" in str(command.lacking("cuda:3"))
    assert CliRunner().invoke(command.main, ["--device", "gpu"]).exit_code == 2


def test_the_driver_is_asked_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "Path", lambda _: SimpleNamespace(exists=lambda: False))

    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert page._driver() == "unknown"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="580.12\n580.12\n"))
    assert page._driver() == "580.12"


@pytest.mark.parametrize(
    ("message", "operation"),
    [
        ("index_add_cuda_ does not have a deterministic implementation, but you set", "index_add_cuda_"),
        (
            "Memory Efficient attention defaults to a non-deterministic algorithm. To",
            "Memory Efficient attention",
        ),
        (
            "Deterministic behavior was enabled, but this operation is not deterministic because it uses CuBLAS",
            "CuBLAS",
        ),
        ("something else is deprecated", None),
    ],
)
def test_torch_s_words_for_what_is_not_deterministic(message: str, operation: str | None) -> None:
    assert trainings.undetermined(message) == operation


def test_what_torch_says_once_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> None:
        assert torch.is_warn_always_enabled()
        warnings.warn("cumsum_cuda does not have a deterministic implementation", stacklevel=1)

    monkeypatch.setattr(trainings, "training_step", lambda *_: step)
    assert trainings.not_deterministic(Settings("cpu", smallest=True)) == "cumsum_cuda (glow)"
    assert not torch.is_warn_always_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_attention_is_resumed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, str]] = []

    def same(_: Settings, wanted: Any) -> bool:
        tried.append((wanted.name, wanted.train.memory))
        return wanted.name != "flowpp-tiny"

    monkeypatch.setattr(trainings, "_resumes", same)
    with pytest.raises(AssertionError, match=r"flowpp-tiny \(attention, memory=store\): the resumed"):
        trainings.resumes(Settings("cpu"))
    assert tried == [*(("glow-tiny", mode) for mode in trainings.MODES), ("flowpp-tiny", "store")]


@pytest.mark.filterwarnings("ignore")
def test_the_synchronisation_check_is_on_around_the_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = ["default"]

    def step() -> None:
        for _ in range(2 if len(built) == 1 and modes[-1] == "warn" else 1):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    built: list[str] = []

    def build(_: Settings, name: str) -> Any:
        assert modes[-1] == "default"
        built.append(name)
        return step

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(trainings, "training_step", build)
    monkeypatch.setattr(Settings, "architectures", lambda _: ["glow", "nice"])
    with pytest.raises(AssertionError, match=r"^glow waits 2 times: cuda/test_checks.py:\d+$"):
        trainings.host_waits(Settings("cuda"))
    assert modes == ["default", "warn", "default", "warn", "default"]


def test_the_memory_s_limit_is_that_of_a_numbered_card(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    real = torch.empty
    fake = {
        "reset_peak_memory_stats": lambda _: None,
        "max_memory_allocated": lambda _: 100,
        "memory_allocated": lambda _: 20,
        "empty_cache": lambda: None,
        "get_device_properties": lambda _: SimpleNamespace(total_memory=1000),
        "set_per_process_memory_fraction": lambda share, index: given.append((share, index)),
    }
    for name, function in fake.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(
        torch, "empty", lambda *a, **k: SimpleNamespace(get_device=lambda: 2) if k.get("device") else real(*a)
    )
    step: Any = lambda _: None  # noqa: E731
    with trainings._little_memory(Settings("cuda"), _Step(step), None):  # type: ignore[arg-type]
        assert given == [(0.08, 2)]
    assert given[1] == (1.0, 2)


class _Step:
    def __init__(self, call: Any) -> None:
        self.call, self.flow = call, torch.nn.Linear(1, 1)

    def __call__(self, batch: Any) -> None:
        self.call(batch)


def test_both_processes_compute_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)

    class Enough(Exception):
        pass

    def stop(_: str) -> Any:
        raise Enough

    monkeypatch.setattr(process, "world", stop)
    with pytest.raises(Enough):
        process.main("cpu")
    assert torch.backends.cudnn.allow_tf32 is False
    monkeypatch.undo()
    assert torch.backends.cudnn.allow_tf32 == before


def test_findings_name_all_that_is_wrong() -> None:
    found = Findings()
    found.hold("a", 1.0, 1.0)
    assert found.result() == ""
    found.hold("b", 2.0, 1.0, " nats")
    found.hold("c", math.nan, 1.0)
    with pytest.raises(AssertionError, match=r"^b: 2\.0e\+00 nats, allowed 1\.0e\+00; c: nan, allowed"):
        found.result()
