"""The mathematics works alone: its own tests pass in a copy of the package from which the engine is deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

EVERY_MODULE = """
import importlib, pkgutil, sys
import flowzoo
assert flowzoo.__file__.startswith(sys.argv[1]), flowzoo.__file__
names = []
for room in ("bijectors", "nets", "densities", "ops"):
    package = importlib.import_module(f"flowzoo.{room}")
    names += [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
assert not [name for name in sys.modules if name.startswith("flowzoo.engine")]
print(len(names))
"""


@pytest.fixture(scope="module")
def without_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("without_engine")
    unwanted = shutil.ignore_patterns("__pycache__", "*.npz", "engine")
    shutil.copytree(ROOT / "flowzoo", root / "flowzoo", ignore=unwanted)
    shutil.copytree(ROOT / "tests", root / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    assert not (root / "flowzoo/engine").exists()
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_every_module_of_the_mathematics_is_imported(without_engine: Path) -> None:
    done = run(without_engine, "-c", EVERY_MODULE, str(without_engine))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


def test_the_tests_of_the_mathematics_pass(without_engine: Path) -> None:
    # Forward, inverse, log-determinant and gradients of every bijector, networks and densities; the slow ones apart.
    directions = ("undoes_forward", "log_det_is", "gradients_pass")
    chosen = " or ".join((*directions, "test_conv", "test_bases"))
    done = run(
        without_engine, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--import-mode=importlib",
        "-k", chosen, "tests/bijectors/test_bijectors.py", "tests/nets/test_conv.py", "tests/densities/test_bases.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "passed" in done.stdout
    assert "failed" not in done.stdout


def test_training_by_inversion_and_checkpoint_needs_no_engine(without_engine: Path) -> None:
    program = """
import torch
from tests.bijectors.test_bijectors import make
found = {}
for mode in ("store", "checkpoint", "invertible"):
    bijector, x = make("chain")
    bijector.memory = mode
    x = x.requires_grad_()
    z, log_det = bijector(x)
    (z.square().sum() - log_det.sum()).backward()
    found[mode] = [x.grad, *(p.grad for p in bijector.parameters())]
for mode in ("checkpoint", "invertible"):
    for gradient, expected in zip(found[mode], found["store"], strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)
"""
    done = run(without_engine, "-c", program)
    assert done.returncode == 0, done.stderr
