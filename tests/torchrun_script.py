"""What tests/test_distributed.py runs under torchrun, and alone: gradients, a training, an evaluation.

``python -m tests.torchrun_script RUN_DIRECTORY DATASET GRADIENTS.safetensors``
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from flowzoo.data import TrainBatches
from flowzoo.distributed import broadcast_state, world
from flowzoo.evaluation.measure import evaluate
from flowzoo.training.step import GradientStep
from flowzoo.training.train import build_model, load_data, train
from tests.trainings import tiny_recipe


def main(out: Path, dataset: str, gradients: Path) -> None:
    """Prints a JSON object from process 0."""
    torch.set_num_threads(1)
    recipe = tiny_recipe("glow-tiny", dataset, steps=12, accumulate=2, log_every=1)
    with world("cpu") as where:
        images, _ = load_data(recipe, None)
        flow = build_model(recipe)
        with torch.no_grad():
            # Zero-initialised layers would hide half of the gradient; ranks differ until the broadcast.
            for i, parameter in enumerate(flow.parameters()):
                generator = torch.Generator().manual_seed(1000 * where.rank + i)
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        flow.initialize(images[:32], generator=torch.Generator().manual_seed(0))
        broadcast_state(flow, where)
        free = replace(recipe.train, clip_norm=None)
        batches = TrainBatches(images, free.batch_size, 0, rank=where.rank, world_size=where.size)
        found = GradientStep(flow, free, where)(next(batches))
        if where.main:
            named = {n: p.grad.contiguous() for n, p in flow.named_parameters() if p.grad is not None}
            save_file(named, gradients)
        outcome = train(recipe, out, device="cpu", progress=False)
        measured = evaluate(str(out), device="cpu", progress=False, batch_size=3)
        if where.main:
            audit = measured.reconstruction
            facts = {
                "loss": found.loss,
                "norm": found.norm,
                "best": outcome.best_bpd,
                "processes": where.size,
            }
            facts |= {
                "bpd": measured.bpd,
                "images": measured.num_images,
                "audited": audit.count if audit else 0,
            }
            print(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
