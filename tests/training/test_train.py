"""Training: resuming, stopping, selecting, and surviving damage."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import flowzoo
import flowzoo.atomic
from flowzoo.cli.main import cli
from flowzoo.errors import CheckpointError, ConfigError, InputError, TrainingDiverged
from flowzoo.evaluation.noise import derive_seed
from flowzoo.training.export import export_weights, load_run
from flowzoo.training.run_dir import RunDir
from flowzoo.training.state import list_checkpoints, load_checkpoint
from flowzoo.training.train import build_model, train, train_flow
from tests.trainings import CPU, image_set, save_images, tiny_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from flowzoo.flow import Flow
    from flowzoo.training.loop import Outcome
    from flowzoo.training.recipe import Recipe

IMAGES = (image_set(160), image_set(40, seed=1))


def run_training(
    out: Path, recipe: Recipe | None = None, flow: Flow | None = None, **options: Any
) -> Outcome:
    recipe = recipe or tiny_recipe()
    flow = flow or build_model(recipe)
    return train_flow(flow, recipe, out, IMAGES, CPU, progress=False, **options)


def weights(out: Path) -> tuple[bytes, bytes]:
    run = RunDir(out)
    return run.best.read_bytes(), run.last.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "whole"
    assert run_training(out).state == "finished"
    return out


@pytest.mark.parametrize("name", ["glow-tiny", "realnvp-tiny", "flowpp-tiny", "nice-tiny"])
def test_every_architecture_trains_and_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(name, steps=8, validate_every=4, samples=0)
    run_training(tmp_path / "whole", recipe)
    outcome = run_training(tmp_path / "parts", recipe, max_seconds=0.0)
    assert (outcome.state, outcome.step) == ("out of time", 0)
    request_after(tmp_path / "parts", recipe, 3)
    run_training(tmp_path / "parts", recipe)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def request_after(out: Path, recipe: Recipe, steps: int) -> None:
    """Trains some updates, then interrupts as Ctrl-C does."""
    seen: list[int] = []

    flow = build_model(recipe)

    def count(module: Any, inputs: Any) -> None:
        seen.append(1)
        if len(seen) == steps:
            os.kill(os.getpid(), signal.SIGINT)

    handle = flow.register_forward_pre_hook(count)
    with pytest.raises(KeyboardInterrupt):
        run_training(out, recipe, flow)
    handle.remove()


def test_interrupting_writes_a_checkpoint_first(tmp_path: Path, whole: Path) -> None:
    request_after(tmp_path / "run", tiny_recipe(), 5)
    newest = list_checkpoints(RunDir(tmp_path / "run").checkpoints)[0]
    assert load_checkpoint(newest)[0].step == 5
    assert run_training(tmp_path / "run").state == "finished"
    assert weights(tmp_path / "run") == weights(whole)


def test_bfloat16_networks_resume_bit_for_bit(tmp_path: Path) -> None:
    recipe = tiny_recipe(precision="bfloat16", samples=0)
    run_training(tmp_path / "whole", recipe)
    request_after(tmp_path / "parts", recipe, 7)
    run_training(tmp_path / "parts", recipe)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_a_finished_run_stays_as_it_is(whole: Path) -> None:
    before = weights(whole)
    assert run_training(whole).state == "finished"
    assert weights(whole) == before


def test_seeds_and_only_seeds_change_the_weights(tmp_path: Path, whole: Path) -> None:
    torch.manual_seed(12345)
    run_training(tmp_path / "same")
    run_training(tmp_path / "other", tiny_recipe(seed=1))
    assert weights(tmp_path / "same") == weights(whole)
    assert weights(tmp_path / "other") != weights(whole)


def test_metrics_are_whole_after_an_interruption(tmp_path: Path, whole: Path) -> None:
    request_after(tmp_path / "run", tiny_recipe(), 5)
    run_training(tmp_path / "run")
    for kind, key in (("train", "loss"), ("valid", "bpd")):
        found = [(r["step"], r[key]) for r in RunDir(tmp_path / "run").rows() if r["kind"] == kind]
        assert found == [(r["step"], r[key]) for r in RunDir(whole).rows() if r["kind"] == kind]


def test_a_training_learns_and_records(whole: Path) -> None:
    run = RunDir(whole)
    rows = run.rows()
    assert rows[0]["kind"] == "header"
    assert rows[0]["versions"]["torch"] == torch.__version__
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < losses[0]
    last = [row for row in rows if row["kind"] == "train"][-1]
    assert {"lr", "grad_norm", "clipped", "images_per_s", "seconds", "images"} <= last.keys()
    assert last["images"] == 12 * 16
    assert 0 <= last["clipped"] <= 1
    assert run.curve.is_file()
    assert len(list(run.samples.glob("*.png"))) == 2


def test_a_corrupt_newest_checkpoint_is_passed_over(tmp_path: Path, whole: Path) -> None:
    out, said = tmp_path / "run", list[str]()
    request_after(out, tiny_recipe(checkpoint_every=2), 7)
    newest = list_checkpoints(RunDir(out).checkpoints)[0] / "state.safetensors"
    spoilt = bytearray(newest.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    newest.write_bytes(spoilt)
    run_training(out, tiny_recipe(checkpoint_every=2), say=said.append)
    assert any("damaged" in line and "Falling back" in line for line in said)
    assert any("Resuming at step 6" in line for line in said)
    assert weights(out) == weights(whole)


def test_without_a_sound_checkpoint_it_says_so(tmp_path: Path) -> None:
    request_after(tmp_path / "run", tiny_recipe(), 3)
    for path in list_checkpoints(RunDir(tmp_path / "run").checkpoints):
        (path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="Every checkpoint"):
        run_training(tmp_path / "run")


def test_a_full_disk_is_a_clear_error_and_spares_old_checkpoints(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    request_after(out, tiny_recipe(), 4)
    before = [path.name for path in list_checkpoints(RunDir(out).checkpoints)]
    whole_write, room = flowzoo.atomic.write_all, [20_000]

    def limited(handle: BinaryIO, chunk: flowzoo.atomic.Chunk) -> None:
        room[0] -= memoryview(chunk).nbytes
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole_write(handle, chunk)

    monkeypatch.setattr(flowzoo.atomic, "write_all", limited)
    with pytest.raises(CheckpointError, match="full"):
        run_training(out, tiny_recipe(checkpoint_every=1))
    assert [path.name for path in list_checkpoints(RunDir(out).checkpoints)] == before
    assert not list(out.rglob(".partial-*"))
    monkeypatch.setattr(flowzoo.atomic, "write_all", whole_write)
    run_training(out)
    assert weights(out) == weights(whole)


def test_old_checkpoints_are_pruned(tmp_path: Path) -> None:
    run_training(tmp_path / "run", tiny_recipe(checkpoint_every=1, keep=3))
    names = [int(path.name) for path in list_checkpoints(RunDir(tmp_path / "run").checkpoints)]
    assert names == [12, 11, 10]


def test_a_damaged_checkpoint_of_a_later_step_does_not_crowd_out_sound_ones(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run_training(tmp_path / "run", tiny_recipe(checkpoint_every=4, keep=2), max_seconds=0)
    sound = run_training(tmp_path / "run", tiny_recipe(checkpoint_every=4, keep=2))
    newest = list_checkpoints(run.checkpoints)[0]
    (newest / "state.json").write_text("{}")
    assert sound.step == int(newest.name) == 12
    run_training(tmp_path / "run", tiny_recipe(checkpoint_every=1, keep=1), max_seconds=0)
    found = list_checkpoints(run.checkpoints)
    assert [int(path.name) for path in found] == [8]
    assert load_checkpoint(found[0])[0].step == 8


def poisoned(recipe: Recipe, step: int) -> Flow:
    """A flow whose loss is not a number at one update (counted from 1), however often that is computed."""
    flow = build_model(recipe)
    layer = next(m for name, m in flow.named_modules() if name.endswith("net.first"))

    def poison(module: Any, inputs: Any, output: Any) -> Any:
        # Each update seeds torch's generators with a seed of its own.
        here = torch.initial_seed() == derive_seed(recipe.train.seed, step - 1, "layers", 0)
        return output * float("nan") if module.training and here else output

    layer.register_forward_hook(poison)
    return flow


def test_nan_stops_and_names_step_and_layer(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    with pytest.raises(
        TrainingDiverged, match=r"Step 5: loss nan.*offending layer is '.*net\.first'.*not finite"
    ):
        run_training(tmp_path / "run", recipe, poisoned(recipe, 5))
    assert list_checkpoints(RunDir(tmp_path / "run").checkpoints)
    bad = [row for row in RunDir(tmp_path / "run").rows() if row["kind"] == "bad"]
    assert bad[0]["step"] == 5


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_nan_can_be_passed_over(policy: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(on_nan=policy)
    said = list[str]()
    outcome = run_training(tmp_path / "run", recipe, poisoned(recipe, 5), say=said.append)
    assert outcome.state == "finished"
    assert any(line.startswith("Step 5: loss nan") for line in said)
    end = [row for row in RunDir(tmp_path / "run").rows() if row["kind"] == "train"][-1]
    assert end["skipped"] == 1
    assert all(bool(t.isfinite().all()) for t in load_file(RunDir(tmp_path / "run").last).values())


def test_rolling_back_passes_over_a_checkpoint_of_spoilt_weights(tmp_path: Path) -> None:
    """Weights that are finite, but so large that every loss is not, may have been saved before anyone knew."""
    recipe = tiny_recipe(on_nan="rollback", checkpoint_every=1, keep=2, validate_every=12)
    flow, said = build_model(recipe), list[str]()
    layer = next(m for name, m in flow.named_modules() if name.endswith("net.first"))
    steps = [0]

    def spoil(*_: Any) -> None:
        steps[0] += 1
        if steps[0] == 5:
            with torch.no_grad():
                next(layer.parameters()).fill_(1e38)

    # After the fifth gradient is known, as by an update that is far too long.
    next(layer.parameters()).register_post_accumulate_grad_hook(spoil)
    assert run_training(tmp_path / "run", recipe, flow, say=said.append).state == "finished"
    assert sum("Rolling back" in line for line in said) == 2


def test_early_stop(tmp_path: Path) -> None:
    sets = ["train.patience=2", "optimizer.lr=0.3"]
    recipe = tiny_recipe("glow-tiny", "made-up", *sets, steps=60, validate_every=1, samples=0, ema=0.0)
    outcome = run_training(tmp_path / "run", recipe)
    assert outcome.state == "stopped early"
    assert outcome.best_step is not None
    assert outcome.step == outcome.best_step + 2


def test_the_best_weights_are_those_of_the_best_validation(whole: Path) -> None:
    rows = [row for row in RunDir(whole).rows() if row["kind"] == "valid"]
    flow = load_run(whole)
    assert flow.is_initialized
    from flowzoo.training.validation import validate

    best = min(rows, key=lambda row: row["bpd"])
    assert validate(flow, IMAGES[1], CPU).value == pytest.approx(best["bpd"], abs=1e-7)


def test_an_export_loads_by_path_and_repeats_its_bytes(whole: Path, tmp_path: Path) -> None:
    first = export_weights(whole, tmp_path / "a").read_bytes()
    assert export_weights(whole, tmp_path / "b").read_bytes() == first
    flow = flowzoo.load(f"path:{tmp_path / 'a'}")
    x = IMAGES[1][:4]
    torch.manual_seed(0)
    expected = load_run(whole).bits_per_dim(x, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flow.bits_per_dim(x, generator=torch.Generator().manual_seed(0)), expected)
    half = export_weights(whole, tmp_path / "half", dtype=torch.float16)
    assert half.stat().st_size < 0.7 * len(first)
    assert flowzoo.load(f"path:{tmp_path / 'half'}").is_initialized


def test_another_recipe_in_the_same_directory_is_refused(whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        run_training(whole, tiny_recipe("glow-tiny", "made-up", "optimizer.lr=0.5"))


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    images = (image_set(40, (3, 8, 8)), image_set(40, (3, 8, 8)))
    with pytest.raises(InputError, match="Choose another preset"):
        train_flow(build_model(recipe), recipe, tmp_path / "run", images, CPU, progress=False)


def test_starting_from_another_run(tmp_path: Path) -> None:
    recipe = tiny_recipe("glow-tiny", save_images(tmp_path / "images.npy"))
    train(recipe, tmp_path / "first", device="cpu", progress=False)
    outcome = train(recipe, tmp_path / "second", device="cpu", progress=False, init_from=tmp_path / "first")
    first = [row for row in RunDir(tmp_path / "first").rows() if row["kind"] == "train"]
    second = [row for row in RunDir(tmp_path / "second").rows() if row["kind"] == "train"]
    assert outcome.state == "finished"
    assert second[0]["loss"] < first[0]["loss"]


def test_compute_seconds_add_up_over_sessions(tmp_path: Path) -> None:
    request_after(tmp_path / "run", tiny_recipe(), 6)
    first = load_checkpoint(list_checkpoints(RunDir(tmp_path / "run").checkpoints)[0])[0]
    time.sleep(0.2)
    outcome = run_training(tmp_path / "run")
    assert outcome.hours * 3600 > first.seconds > 0
    assert RunDir(tmp_path / "run").rows()[-1]["seconds"] == pytest.approx(outcome.hours * 3600)


def test_signals_outside_the_main_thread_do_not_matter(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run_training(tmp_path / "run")))
    thread.start()
    thread.join()
    assert outcomes[0].state == "finished"


def test_command_line(tmp_path: Path) -> None:
    dataset = save_images(tmp_path / "images.npy")
    toml = tmp_path / "own.toml"
    toml.write_text(
        f'schema = 1\nname = "glow-tiny"\n[model]\nimage_shape = [1, 8, 8]\n[data]\ndataset = "{dataset}"\n'
        "[train]\nsteps = 4\nbatch_size = 16\ninit_images = 32\nvalidate_every = 4\n"
    )
    out = str(tmp_path / "runs" / "a")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli, arguments, standalone_mode=False)
        assert result.exception is None, result.output
        return result.stdout

    plan = json.loads(call("train", str(toml), "--dry-run", "--device", "cpu", "--json"))
    assert plan["updates"] == 4
    assert plan["first loss (bits/dim)"] > 0
    assert plan["bytes of activations"] > 0
    assert not (tmp_path / "runs").exists()
    found = json.loads(call("train", str(toml), "--out", out, "--device", "cpu", "--json"))
    assert (found["state"], found["step"]) == ("finished", 4)
    call(
        "train", str(toml), "--out", str(tmp_path / "runs" / "b"), "--device", "cpu", "--set", "train.steps=2"
    )
    table = json.loads(call("runs", str(tmp_path / "runs"), "--json"))
    assert {run["run"]: run["step"] for run in table} == {"a": 4, "b": 2}
    assert table[0]["best_bpd"] <= table[1]["best_bpd"]
    assert "BEST" in call("runs", str(tmp_path / "runs"))
    picture = tmp_path / "grid.png"
    call("sample", out, "-n", "4", "-o", str(picture), "--device", "cpu")
    first = picture.read_bytes()
    call("sample", out, "-n", "4", "-o", str(picture), "--device", "cpu", "--batch-size", "3")
    assert picture.read_bytes() == first


def test_ctrl_c_on_the_command_line_exits_130_with_a_checkpoint(tmp_path: Path) -> None:
    dataset, out = save_images(tmp_path / "images.npy"), tmp_path / "run"
    sets = ["train.steps=100000", "train.samples=0", f"data.dataset={dataset}", "model.image_shape=[1,8,8]"]
    command = [sys.executable, "-m", "flowzoo", "train", "glow-tiny", "--out", str(out), "--device", "cpu"]
    command += [part for text in sets for part in ("--set", text)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while len(RunDir(out).rows()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    step = load_checkpoint(list_checkpoints(RunDir(out).checkpoints)[0])[0].step
    assert step > 0
    assert RunDir(out).rows()[-1] | {"seconds": 0, "images": 0} == {
        "kind": "end",
        "step": step,
        "state": "interrupted",
        "seconds": 0,
        "images": 0,
    }
