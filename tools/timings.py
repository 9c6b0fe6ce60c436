"""Times the models that have weights: ``python -m tools.timings [NAME]...``, into ``docs/timings.json``.

Milliseconds an image of ``log_prob`` (one noise sample) and of ``sample``, on one thread of this machine's processor:
the fastest of some runs, in processor seconds, so that neighbours on the machine count little. And how exactly the
flow is inverted: the largest difference, in grey levels, between dequantized images and what their latents give back;
of vectors in their own units.
"""

from __future__ import annotations

import copy
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

import flowzoo
from flowzoo.flow import Flow
from flowzoo.manifest.write import read_manifest

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "timings.json"
BATCH, RUNS = 64, 5


def timing(key: str, batch: int = BATCH, runs: int = RUNS) -> dict[str, Any]:
    """The times of a model, ``name@version``, with the weights and the machine that they are of."""
    torch.set_num_threads(1)
    flow = flowzoo.load(key)
    generator = torch.Generator().manual_seed(0)
    with flow.frozen(), torch.no_grad():
        images = flow.sample(batch, generator=generator)
        density = _fastest(lambda: flow.log_prob(images), runs)
        sample = _fastest(lambda: flow.sample(batch, generator=generator), runs)
    return {
        "sha256": _sha256(flow),
        "density_ms": float(f"{1000 * density / batch:.3g}"),
        "sample_ms": float(f"{1000 * sample / batch:.3g}"),
        "hardware": f"{_processor()}, 1 thread, batch {batch}",
        "round_trip": round_trip(flow, images),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "flowzoo": flowzoo.__version__,
        },
    }


def round_trip(flow: Flow, images: torch.Tensor) -> dict[str, float]:
    """The largest |v - f^-1(f(v))|, v vectors or, in grey levels, dequantized images, in float32 and in float64."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        copied = copy.deepcopy(flow).to(dtype)
        values = copied.space.values(images, dtype)
        with torch.no_grad(), copied.frozen():
            noise = copied.dequantization.central(values, copied.engine.run)
            v = copied.space.to_reals(values + noise)
            if copied.augmentation is not None:
                v, _ = copied.augmentation(v, copied.engine.run, central=True)
            z, _ = copied.engine.run(copied.bijector, v, None)
            back, _ = copied.engine.run(copied.bijector, z, None, inverse=True)
        worst = float((back - v).abs().max()) * 2**flow.n_bits  # which are 0 of vectors
        found[str(dtype).removeprefix("torch.")] = float(f"{worst:.2g}")
    return found


def _sha256(flow: Flow) -> str:
    assert flow.card is not None
    assert flow.card.weights is not None
    return flow.card.weights.sha256


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _fastest(call: Callable[[], object], runs: int) -> float:
    """Processor seconds of the fastest of some calls, after one that does not count."""
    call()
    times = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--keep-times", is_flag=True, help="Leave the times of weights that were timed before.")
def main(names: tuple[str, ...], keep_times: bool) -> None:
    """Times these models, or all that have weights here."""
    manifest = read_manifest(ROOT / "weights_manifest.json")
    entries = [entry for name in names or manifest.names() if (entry := manifest.default(name)) is not None]
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    for entry in entries:
        if entry.weights is not None:
            before = known.get(entry.key, {})
            same = before.get("sha256") == entry.weights.sha256
            known[entry.key] = _kept(entry.key, before) if keep_times and same else timing(entry.key)
            click.echo(
                f"{entry.key}: {known[entry.key]['density_ms']:g} / {known[entry.key]['sample_ms']:g} ms"
            )
    FILE.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


def _kept(key: str, before: dict[str, Any]) -> dict[str, Any]:
    """The times of before, with the round trip of today."""
    flow = flowzoo.load(key)
    images = flow.sample(BATCH, generator=torch.Generator().manual_seed(0))
    return {**before, "round_trip": round_trip(flow, images)}


if __name__ == "__main__":
    main()
