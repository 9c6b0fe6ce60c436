"""Checks of training: it resumes, in bfloat16, in two processes, with data ahead of it, in little memory."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowzoo.bijectors.chain import MemoryMode
from flowzoo.data import ImageSet, TrainBatches
from flowzoo.distributed import World
from flowzoo.errors import OutOfMemory
from flowzoo.training.recipe import Recipe, parse_recipe
from flowzoo.training.step import GradientStep
from flowzoo.training.train import build_model, train_flow
from tools.cuda.on_path import ROOT
from tools.cuda.settings import Settings, Skipped

MODES: tuple[MemoryMode, ...] = ("store", "checkpoint", "invertible")
BFLOAT16_BITS = 0.01


def made_up(count: int, size: int = 8, channels: int = 1, seed: int = 0) -> Tensor:
    """Smooth random images uint8 ``(count, C, size, size)`` that a flow can learn something of."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(rough, (size, size), mode="bilinear")
    return (smooth * 200 + 20 * torch.rand(smooth.shape, generator=generator)).to(torch.uint8)


def recipe(settings: Settings, **train: Any) -> Recipe:
    """A short training of a small Glow."""
    steps = 4 if settings.smallest else 60
    given = {"steps": steps, "batch_size": 16, "init_images": 32, "samples": 0, "validate_every": steps // 2}
    model = {"image_shape": [1, 8, 8]}
    tree = {"schema": 1, "name": "glow-tiny", "model": model, "data": {"dataset": "made-up"}}
    return parse_recipe(tree | {"train": given | train}, "tools.cuda")


def run(settings: Settings, wanted: Recipe, out: Path, **options: Any) -> Any:
    """Trains, and returns the outcome."""
    data = (
        ImageSet(made_up(128), id="made-up", split="train"),
        ImageSet(made_up(32, seed=1), id="made-up", split="valid"),
    )
    where = World(0, 1, settings.place)
    flow = build_model(wanted)
    return train_flow(
        flow, wanted, out, data, where, progress=False, say=lambda _: None, **options
    )  # fmt: skip


class _StopAfter:
    """A callback that asks to stop after some updates."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, training: Any) -> None:
        if training.step == self.steps:
            training.stop("half of it")


def resumes(settings: Settings) -> str:
    """A training that was stopped and resumed ends with the weights of one that was not, bit for bit."""
    details = []
    for memory in MODES[:1] if settings.smallest else MODES:
        with tempfile.TemporaryDirectory() as folder:
            wanted, whole, parts = recipe(settings, memory=memory), Path(folder, "a"), Path(folder, "b")
            run(settings, wanted, whole)
            half = wanted.train.validate_every - 1
            stopped = run(settings, wanted, parts, callbacks=[_StopAfter(half)])
            assert (stopped.state, stopped.step) == ("stopped", half), stopped
            run(settings, wanted, parts)
            same = (whole / "last.safetensors").read_bytes() == (parts / "last.safetensors").read_bytes()
        assert same, f"memory={memory}: the resumed training ends with other weights"
        details.append(memory)
    return "bit for bit: " + ", ".join(details)


def not_deterministic(settings: Settings) -> str:
    """The operations of a training step that have no deterministic kernel on this device, as torch names them."""
    named: set[str] = set()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        for name in settings.architectures():
            with warnings.catch_warnings(record=True) as noted:
                warnings.simplefilter("always")
                _one_step(settings, replace(recipe(settings), name=f"{name}-tiny", model={}))
            for warning in noted:
                found = re.match(r"(\S+) does not have a deterministic", str(warning.message))
                named |= {f"{found[1]} ({name})"} if found else set()
    finally:
        torch.use_deterministic_algorithms(before)
    without = "without train.deterministic torch may take others, such as cuDNN's and atomic additions"
    return (
        f"{', '.join(sorted(named)) or 'none'}; {without}"
        if settings.is_cuda
        else f"{', '.join(named) or 'none'}"
    )


def _one_step(settings: Settings, wanted: Recipe) -> None:
    from flowzoo.data.pipeline import Batch
    from flowzoo.testing.randomize import random_data, random_labels, randomize

    flow = randomize(build_model(wanted), seed=0).to(settings.place)
    count = wanted.train.batch_size
    x, y = random_data(flow, count, seed=0), random_labels(flow, count)
    step = GradientStep(flow, wanted.train, World(0, 1, settings.place), labels=y is not None)
    step(Batch(x, torch.arange(count), 0, 0, y))


def bfloat16(settings: Settings) -> str:
    """Networks in bfloat16 reach the validation of float32 within 0.01 bits/dim after the same updates."""
    found = {}
    for precision in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            steps = 4 if settings.smallest else 300
            wanted = recipe(settings, precision=precision, steps=steps, validate_every=steps)
            found[precision] = run(settings, wanted, Path(folder)).best
    apart = abs(found["float32"] - found["bfloat16"])
    assert apart <= BFLOAT16_BITS, f"{found} differ by {apart:.4f}, allowed {BFLOAT16_BITS}"
    return f"{found['float32']:.4f} and {found['bfloat16']:.4f} bits/dim"


def two_processes(settings: Settings) -> str:
    """Two processes have the gradients of one: NCCL where there are two GPUs, gloo on the CPU else."""
    from tools.cuda.process import gradient

    count = torch.cuda.device_count() if settings.is_cuda else 0
    device = "cuda" if count >= 2 else "cpu"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = ["-m", "tools.cuda.process", device]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *script],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1:]
    backend, size, joint = done.stdout.split()
    assert size == "2", done.stdout
    alone = gradient(World(0, 1, torch.device(device)))
    apart = abs(alone - float(joint)) / alone
    assert apart <= 1e-5, f"the gradients' norms {alone} and {joint} differ by {apart:.1e}"
    return f"{backend}, gradients' norms {alone:.6f} and {float(joint):.6f}"


def data_ahead(settings: Settings) -> str:
    """Reading ahead overlaps with computing, and what is read is pinned where it goes to a GPU."""
    steps, seconds = (6, 0.03) if settings.smallest else (20, 0.05)
    images = made_up(64)
    data = ImageSet(images, id="made-up", split="train")
    gather = data.batch

    def slowly(indices: Tensor) -> Tensor:
        time.sleep(seconds)
        return gather(indices)

    data.batch = slowly  # type: ignore[method-assign]
    batches = TrainBatches(data, 16, 0, device=settings.place, resident=False, workers=1)
    pinned = batches._gather(torch.arange(4))[1].is_pinned() if settings.is_cuda else None
    assert pinned in (None, True), "batches for a GPU are not pinned"
    next(batches)
    began = time.monotonic()
    for _ in range(steps):
        time.sleep(seconds)  # the update
        assert next(batches).images.device.type == settings.place.type
        settings.wait()
    taken = time.monotonic() - began
    batches.close()
    share = taken / (2 * steps * seconds)
    assert share < 0.85, f"reading and computing took {share:.2f} of their sum: they do not overlap"
    return f"{share:.2f} of the sum of both" + (", pinned" if pinned else "")


def out_of_memory(settings: Settings) -> str:
    """An update that does not fit ends in one line that names what to try, and that fits."""
    wanted = recipe(settings, batch_size=64 if settings.smallest else 4096)
    flow = build_model(wanted).to(settings.place)
    from flowzoo.data.pipeline import Batch

    count = wanted.train.batch_size
    batch = Batch(made_up(count).to(settings.place), torch.arange(count), 0, 0, None)
    step = GradientStep(flow, wanted.train, World(0, 1, settings.place))
    with _little_memory(settings, step, batch):
        try:
            step(batch)
        except OutOfMemory as error:
            line = str(error)
        else:
            raise AssertionError("the update fits into a memory that it should not fit into")
        assert "\n" not in line, line
        parts = re.search(r"train\.accumulate=(\d+)", line)
        assert parts, line
        lighter = replace(wanted.train, accumulate=int(parts[1]))
        found = GradientStep(flow, lighter, World(0, 1, settings.place))(batch)
    assert found.finite
    return line


@contextlib.contextmanager
def _little_memory(settings: Settings, step: GradientStep, batch: Any) -> Iterator[None]:
    """Memory for three quarters of what the update takes: the allocator's own limit, or on a CPU one made here."""
    if settings.is_cuda:
        torch.cuda.reset_peak_memory_stats(settings.place)
        step(batch)
        step.flow.zero_grad(set_to_none=True)
        peak = torch.cuda.max_memory_allocated(settings.place)
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(settings.place).total_memory
        held = torch.cuda.memory_allocated(settings.place)
        torch.cuda.set_per_process_memory_fraction((held + 0.75 * (peak - held)) / total, settings.place)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, settings.place)
        return
    most = 3 * len(batch.images) // 4

    def refuse(module: Any, given: Any) -> None:
        if len(given[0]) > most:
            torch.empty(2**62, dtype=torch.uint8)

    handle = step.flow.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def memory_modes(settings: Settings) -> str:
    """What a training step keeps for its backward pass: inversion and checkpoints keep less than storing all."""
    from flowzoo.factory import create
    from flowzoo.testing.randomize import randomize

    size, depth, hidden = (8, 4, 8) if settings.smallest else (32, 16, 128)
    flow = create("glow", image_shape=(3, size, size), levels=2, depth=depth, hidden_channels=hidden)
    randomize(flow, seed=0, scale=0.01).to(settings.place)
    x = made_up(8 if settings.smallest else 64, size, 3).to(settings.place)
    held = {}
    for mode in MODES:
        flow.set_memory(mode)
        flow.zero_grad(set_to_none=True)
        held[mode] = _peak(settings, flow, x) if settings.is_cuda else _kept(flow, x)
    assert held["invertible"] < held["store"], held
    assert held["checkpoint"] < held["store"], held
    unit = "MiB at the peak" if settings.is_cuda else "MiB kept for the backward pass"
    return ", ".join(f"{mode} {size / 2**20:.1f}" for mode, size in held.items()) + f" {unit}"


def _peak(settings: Settings, flow: Any, x: Tensor) -> int:
    torch.cuda.reset_peak_memory_stats(settings.place)
    before = torch.cuda.memory_allocated(settings.place)
    flow(x).mean().backward()
    settings.wait()
    return torch.cuda.max_memory_allocated(settings.place) - before


def _kept(flow: Any, x: Tensor) -> int:
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in flow.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = flow(x).mean()
    loss.backward()
    return sum(kept.values())


def host_waits(settings: Settings) -> str:
    """A training step waits for the device once, for loss and norm: counted by torch's own synchronisation check."""
    if not settings.is_cuda:
        raise Skipped(
            "torch counts synchronisations on CUDA alone; tests/cuda/test_host_waits.py counts by meta tensors"
        )
    counts = {}
    for name in settings.architectures():
        wanted = replace(recipe(settings), name=f"{name}-tiny", model={})
        _one_step(settings, wanted)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as noted, contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("always")
                _one_step(settings, wanted)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        inside = [w for w in noted if "synchroniz" in str(w.message) and "tools/cuda" not in w.filename]
        counts[name] = len(inside)
    return ", ".join(f"{name} {count}" for name, count in counts.items())
