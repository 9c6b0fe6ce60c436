"""Which items a model does not give back, and why: ``python -m tools.exactness NAME...``, into ``docs/exactness.json``.

The audit of ``flowzoo eval`` counts the test items that ``decode(encode(x))`` gives back in float32. This command finds
the others again and asks in float64, where rounding is a billion times smaller: what comes back there was lost to
rounding. It asks the same of samples of the model at temperature 1, on which ``docs/timings.json`` measures the round
trip. Machines round differently: the counts can differ by a few between them.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

import flowzoo
from flowzoo.bijectors.wanted import values_alone
from flowzoo.data import get_dataset
from flowzoo.evaluation.audit import given_back
from flowzoo.flow import Flow
from flowzoo.manifest.read import Entry
from flowzoo.manifest.write import read_manifest
from tools.timings import BATCH

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "exactness.json"


def exactness(flow: Flow, items: Tensor, batch: int = BATCH) -> dict[str, int]:
    """How many items come back in float32, and how many of the others in float64.

    Args:
        flow: The flow, in eval mode and float32.
        items: ``(N, ...)``, images as uint8.
        batch: Items at a time.

    Returns:
        ``items``, ``float32``, ``float64``.
    """
    exact = copy.deepcopy(flow).double()
    back = _all(flow, items, batch)
    others = items[~back]
    return {
        "items": len(items),
        "float32": int(back.sum()),
        "float64": int(_all(exact, others, batch).sum()) if len(others) else 0,
    }


def _all(flow: Flow, items: Tensor, batch: int) -> Tensor:
    """Which items come back, bool ``(N,)``."""
    found = []
    with torch.no_grad(), flow.frozen():
        for part in items.split(batch):
            x = part if flow.data_kind == "images" else part.to(next(flow.parameters()).dtype)
            z = flow.encode(x)
            with values_alone():
                v, _ = flow.engine.run(flow.bijector, z, None, inverse=True)
            found.append(given_back(flow, x, v))
    return torch.cat(found)


def measured(entry: Entry, limit: int | None) -> dict[str, Any]:
    """Both counts of a model, of its test items and of its samples, with the weights that they are of."""
    assert entry.weights is not None
    torch.set_num_threads(1)
    flow = flowzoo.load(entry.key)
    data = get_dataset(entry.data.id).load(entry.data.split)
    items = data[: min(limit or len(data), len(data))]
    samples = flow.sample(BATCH, generator=torch.Generator().manual_seed(0))
    return {
        "sha256": entry.weights.sha256,
        "test": exactness(flow, items),
        "samples": exactness(flow, samples),
    }


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1), help="Look at the first so many test items alone.")
def main(names: tuple[str, ...], limit: int | None) -> None:
    """Counts what these models give back."""
    manifest = read_manifest(ROOT / "weights_manifest.json")
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    for name in names:
        entry = manifest.default(name)
        if entry is None or entry.weights is None:
            raise click.ClickException(f"{name} has no weights; name a released model.")
        known[entry.key] = measured(entry, limit)
        click.echo(f"{entry.key}: {known[entry.key]}")
        FILE.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
