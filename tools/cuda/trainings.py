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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowzoo.bijectors.chain import MemoryMode
from flowzoo.data import ImageSet, TrainBatches
from flowzoo.data.pipeline import Batch
from flowzoo.distributed import World
from flowzoo.errors import OutOfMemory
from flowzoo.testing.randomize import random_data, random_labels, randomize
from flowzoo.training.ema import Ema
from flowzoo.training.optim import build_optimizer
from flowzoo.training.recipe import Optimizer, Recipe, parse_recipe
from flowzoo.training.step import GradientStep
from flowzoo.training.train import build_model, train_flow
from tools.cuda.on_path import ROOT
from tools.cuda.settings import Settings, Skipped

MODES: tuple[MemoryMode, ...] = ("store", "checkpoint", "invertible")


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
    found = settings.findings
    cases = [("glow-tiny", memory) for memory in (MODES[:1] if settings.smallest else MODES)]
    cases += [] if settings.smallest else [("flowpp-tiny", "store")]
    for name, memory in cases:
        wanted = replace(recipe(settings, memory=memory), name=name)
        what = f"{name} ({'attention, ' if name.startswith('flowpp') else ''}memory={memory})"
        if _resumes(settings, wanted):
            found.details.append(what)
        else:
            found.wrong.append(f"{what}: the resumed training ends with other weights")
    return "bit for bit: " + found.result()


def _resumes(settings: Settings, wanted: Recipe) -> bool:
    """Whether a training ends with the same weights whether it is stopped half-way or not."""
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "a"), Path(folder, "b")
        run(settings, wanted, whole)
        half = wanted.train.validate_every - 1
        stopped = run(settings, wanted, parts, callbacks=[_StopAfter(half)])
        assert (stopped.state, stopped.step) == ("stopped", half), stopped
        run(settings, wanted, parts)
        return (whole / "last.safetensors").read_bytes() == (parts / "last.safetensors").read_bytes()


UNDETERMINED = (
    r"(\S+) does not have a deterministic",
    r"(.+?) defaults to a non-deterministic",
    r".*(not deterministic because it uses CuBLAS)",
)
"""How torch says that an operation is not deterministic; the first words name it, or stand for it."""


def undetermined(message: str) -> str | None:
    """The operation of which a warning of torch says that it is not deterministic; None of another warning."""
    found = next((m for pattern in UNDETERMINED if (m := re.match(pattern, message, re.DOTALL))), None)
    return None if found is None else found[1].removeprefix("not deterministic because it uses ")


def not_deterministic(settings: Settings) -> str:
    """The operations of a training step that have no deterministic kernel on this device, as torch names them."""
    named: set[str] = set()
    before, always = torch.are_deterministic_algorithms_enabled(), torch.is_warn_always_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Some are said once a process only, and a training may have been the first.
    torch.set_warn_always(True)
    try:
        for name in settings.architectures():
            step = training_step(settings, name)
            with warnings.catch_warnings(record=True) as noted:
                warnings.simplefilter("always")
                step()
            said = [undetermined(str(warning.message)) for warning in noted]
            named |= {f"{operation} ({name})" for operation in said if operation}
    finally:
        torch.set_warn_always(always)
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
    without = "; without train.deterministic torch may take others, such as cuDNN's and atomic additions"
    return f"{', '.join(sorted(named)) or 'none'}{without if settings.is_cuda else ''}"


def training_step(settings: Settings, name: str) -> Callable[[], None]:
    """A function that makes an update of a small model: all that it needs is on the device already."""
    wanted = replace(recipe(settings), name=f"{name}-tiny", model={})
    flow = randomize(build_model(wanted), seed=0).to(settings.place)
    count = wanted.train.batch_size
    x, y = random_data(flow, count, seed=0), random_labels(flow, count)
    gradients = GradientStep(flow, wanted.train, World(0, 1, settings.place), labels=y is not None)
    optimizer, ema = build_optimizer(Optimizer(), flow), Ema(flow, 0.9)
    batch = Batch(x, torch.arange(count), 0, 0, y)

    def step() -> None:
        gradients(batch)
        optimizer.step()
        ema.update(0)

    return step


def short_training(settings: Settings, precision: str) -> float:
    """The validation of a short training, in bits/dim."""
    steps = 4 if settings.smallest else 60
    with tempfile.TemporaryDirectory() as folder:
        wanted = recipe(settings, precision=precision, steps=steps, validate_every=steps)
        return float(run(settings, wanted, Path(folder)).best)


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
        # Not of a device without an index, which this one refuses.
        index = torch.empty(0, device=settings.place).get_device()
        torch.cuda.set_per_process_memory_fraction((held + 0.75 * (peak - held)) / total, index)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, index)
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


SOLVES = ("residual",)
"""Architectures whose training looks at the device more than once: they iterate spectral norms to a tolerance."""


def host_waits(settings: Settings) -> str:
    """A training step waits for the device once, for loss and norm: counted by torch's own synchronisation check."""
    if not settings.is_cuda:
        raise Skipped(
            "torch counts synchronisations on CUDA alone; tests/cuda/test_host_waits.py counts by meta tensors"
        )
    found = settings.findings
    for name in settings.architectures():
        step = training_step(settings, name)
        step()  # what is made once
        settings.wait()
        places = waits_in(step)
        if len(places) != 1 and name not in SOLVES:
            found.wrong.append(f"{name} waits {len(places)} times: {', '.join(sorted(set(places)))}")
        found.details.append(f"{name} {len(places)}")
    return found.result(", ")


def waits_in(step: Callable[[], None]) -> list[str]:
    """Where a step waits for the GPU, as ``file:line``; the mode is on around the step alone."""
    with warnings.catch_warnings(record=True) as noted, contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # Turning the mode on is said too.
    said = [w for w in noted if "called a synchronizing" in str(w.message)]
    return [f"{'/'.join(Path(w.filename).parts[-2:])}:{w.lineno}" for w in said]
