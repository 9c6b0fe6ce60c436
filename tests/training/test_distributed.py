"""Two processes of a real torchrun do what one does: gradients, training, evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flowzoo.training.run_dir import RunDir
from tests.trainings import save_images

ROOT = Path(__file__).parents[2]


def run_script(directory: Path, dataset: str, launcher: list[str]) -> dict[str, Any]:
    arguments = [str(directory / "run"), dataset, str(directory / "gradients.safetensors")]
    command = [sys.executable, "-m", *launcher, "tests.torchrun_script", *arguments]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=200, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("distributed")
    dataset = save_images(directory / "images.npy", 203)
    one, two = directory / "one", directory / "two"
    one.mkdir()
    two.mkdir()
    alone = run_script(one, dataset, [])
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    return one, alone, two, run_script(two, dataset, launcher)


Both = tuple[Path, dict[str, Any], Path, dict[str, Any]]


def test_gradients_equal_those_of_the_joint_batch(both: Both) -> None:
    one, alone, two, joint = both
    assert (alone["processes"], joint["processes"]) == (1, 2)
    assert joint["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    expected, found = (load_file(path / "gradients.safetensors") for path in (one, two))
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_the_curve_is_that_of_one_process(both: Both) -> None:
    one, alone, two, joint = both
    losses = [
        [row["loss"] for row in RunDir(path / "run").rows() if row["kind"] == "train"] for path in (one, two)
    ]
    assert len(losses[0]) == 12
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert joint["best"] == pytest.approx(alone["best"], rel=1e-4)


def test_every_image_is_evaluated_once(both: Both) -> None:
    _, alone, _, joint = both
    assert joint["images"] == alone["images"] == joint["audited"] == 20
    assert joint["bpd"] == pytest.approx(alone["bpd"], rel=1e-4)
