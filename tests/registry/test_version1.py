"""A plugin of version 1, installed by a real pip, goes on working: nobody has to bring it up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowzoo.api import API_VERSION, SUPPORTED_API_VERSIONS
from tests.pip_site import pip_install, run_flowzoo, run_python

FROZEN = Path(__file__).parents[1] / "frozen" / "version1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("version1") / "site"
    pip_install(site, FROZEN)
    return site


def test_this_core_speaks_version_2_and_loads_1() -> None:
    assert API_VERSION == 2
    assert set(SUPPORTED_API_VERSIONS) == {1, 2}


def test_it_is_ok_and_listed(site: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run_flowzoo(site, "plugins", "--json").stdout)}
    assert (rows["fossil"]["state"], rows["fossil"]["cause"]) == ("ok", "")
    presets = {
        row["preset"]: row for row in json.loads(run_flowzoo(site, "list", "--presets", "--json").stdout)
    }
    assert presets["fossil-cifar10"]["labels"] is None
    assert presets["fossil-cifar10"]["published"]["bpd"] == 3.5


def test_its_kit_passes(site: Path) -> None:
    done = run_flowzoo(site, "plugins", "check", "fossil", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["passed"]


def test_its_flow_is_of_images_whatever_else_its_config_has(site: Path) -> None:
    program = (
        "import flowzoo, torch; flow = flowzoo.create('fossil-tiny'); x = flow.sample(2); "
        "print(tuple(flow.image_shape), tuple(x.shape), x.dtype, flow.bits_per_dim(x).isfinite().all().item())"
    )
    done = run_python(site, "-c", program)
    assert done.stdout == "(1, 8, 8) (2, 1, 8, 8) torch.uint8 True\n", done.stderr
