"""The registry: every data set is fully described, other distributions can add some, broken ones disturb nobody."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from flowzoo.cli.data import data
from flowzoo.data import SPLITS, data_root, discover_datasets, get_dataset, list_datasets, reset_datasets
from flowzoo.data.api import ROOT_PLACEHOLDER
from flowzoo.errors import DataUnavailable, IntegrityError, PluginError, UnknownDataset

BUILT_IN = [
    "mnist", "fashion-mnist", "cifar10", "celeba64-half", "celeba64", "imagenet32-oord", "imagenet64-oord",
    "imagenet32-chrabaszcz", "imagenet64-chrabaszcz", "lsun-bedroom64", "lsun-tower64", "lsun-church64",
]  # fmt: skip

PLUGIN = """
from flowzoo.data.api import Dataset, Split

def make(name="dots", **changes):
    fields = dict(
        id=name, title="Dots", release="1", preprocessing="dots-v1", preprocessing_note="None.",
        image_shape=(1, 4, 4), splits={"train": Split(description="all", size=3)},
        reader="flowzoo_dots_reader:read", terms="CC0", attribution="nobody", how_to_get="it is made on the spot",
    )
    return Dataset(**{**fields, **changes})

DOTS = make()
FUTURE = make("future", api_version=99)
MNIST = make("mnist")
NO_READER = make("no-reader", reader="flowzoo_dots_reader:nothing")

def leave():
    raise SystemExit(3)
"""
READER = """
import torch

def read(dataset, split, paths):
    return torch.zeros(3, *dataset.image_shape, dtype=torch.uint8)
"""


def install(folder: Path, distribution: str, points: dict[str, str]) -> None:
    """Lays out a distribution as pip does."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("[flowzoo.datasets]\n" + "\n".join(lines) + "\n")


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = tmp_path / "site"
    site.mkdir()
    (site / "flowzoo_dots.py").write_text(PLUGIN)
    (site / "flowzoo_dots_reader.py").write_text(READER)
    (site / "flowzoo_broken.py").write_text("def (")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    reset_datasets()
    yield site
    reset_datasets()
    for name in ("flowzoo_dots", "flowzoo_dots_reader"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_set_is_fully_described(name: str) -> None:
    dataset = get_dataset(name)
    assert dataset.id == name
    assert tuple(dataset.splits) == SPLITS
    for text in (dataset.title, dataset.release, dataset.terms, dataset.attribution, dataset.how_to_get):
        assert text
    assert dataset.preprocessing.endswith("-v1")
    assert len(dataset.image_shape) == 3
    looked_for = {path for split in dataset.splits.values() for paths in split.alternatives for path in paths}
    assert set(dataset.md5) <= looked_for
    module, _, function = dataset.reader.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_built_in_ids_are_listed() -> None:
    assert set(BUILT_IN) <= set(list_datasets())


def test_an_unknown_set_is_named_with_its_neighbours() -> None:
    with pytest.raises(UnknownDataset, match="Did you mean 'cifar10'"):
        get_dataset("cifar-10")


def test_the_root_is_argument_then_variable_then_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("FLOWZOO_DATA", raising=False)
    assert data_root() == tmp_path / "flowzoo"
    monkeypatch.setenv("FLOWZOO_DATA", str(tmp_path / "a"))
    assert data_root() == tmp_path / "a"
    assert data_root(tmp_path / "b") == tmp_path / "b"


def test_other_distributions_add_sets_as_object_or_factory(plugins: Path) -> None:
    install(plugins, "dots", {"dots": "flowzoo_dots:DOTS"})
    assert get_dataset("dots").load("train").shape == (3, 1, 4, 4)
    reset_datasets()
    install(plugins, "more", {"dots2": "flowzoo_dots:make"})
    assert "its id is 'dots'" in discover_datasets()["dots2"].cause


def test_broken_distributions_disturb_nobody(plugins: Path) -> None:
    points = {
        "syntax": "flowzoo_broken:X",
        "gone": "flowzoo_absent:X",
        "attribute": "flowzoo_dots:X",
        "leave": "flowzoo_dots:leave",
        "text": "flowzoo_dots:READER",
        "future": "flowzoo_dots:FUTURE",
        "mnist": "flowzoo_dots:MNIST",
        "dots": "flowzoo_dots:DOTS",
    }
    install(plugins, "flowzoo-dots", points)
    assert get_dataset("mnist").title.startswith("MNIST")
    assert get_dataset("dots").title == "Dots"
    for name in ("syntax", "gone", "attribute", "leave", "text", "future"):
        assert name not in list_datasets()
        with pytest.raises(PluginError, match=r"flowzoo-dots 1\.0"):
            get_dataset(name)
    assert "SystemExit" in discover_datasets()["leave"].cause
    result = CliRunner().invoke(data, ["list"])
    assert result.exit_code == 0
    assert "Not usable: syntax" in result.output
    assert "mnist (flowzoo-dots 1.0)" in result.output


def test_two_distributions_with_one_id_are_refused(plugins: Path) -> None:
    install(plugins, "first", {"dots": "flowzoo_dots:DOTS"})
    install(plugins, "second", {"dots": "flowzoo_dots:make"})
    with pytest.raises(PluginError, match=r"first 1\.0.*second 1\.0.*uninstall one"):
        get_dataset("dots")


def test_a_reader_that_cannot_be_imported_is_the_plugins_fault(plugins: Path) -> None:
    install(plugins, "dots", {"no-reader": "flowzoo_dots:NO_READER"})
    with pytest.raises(PluginError, match="flowzoo_dots_reader:nothing"):
        get_dataset("no-reader").load("train")


def test_describing_data_sets_imports_no_torch() -> None:
    code = (
        "import sys, flowzoo.cli.data, flowzoo.data as d; d.list_datasets(); "
        "d.get_dataset('cifar10').is_present('test');"
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def run(*arguments: str) -> Result:
    return CliRunner().invoke(data, list(arguments), standalone_mode=False)


def test_list_and_show_as_json(tmp_path: Path) -> None:
    rows = {row["id"]: row for row in json.loads(run("list", "--root", str(tmp_path), "--json").stdout)}
    assert set(BUILT_IN) <= set(rows)
    splits = rows["mnist"]["splits"]
    assert [splits[split]["present"] for split in SPLITS] == [False, False, True]
    assert splits["train"]["looked_for"][0][0].startswith(str(tmp_path))
    assert json.loads(run("show", "mnist", "--root", str(tmp_path), "--json").stdout) == rows["mnist"]
    text = run("show", "mnist", "--root", str(tmp_path)).stdout
    assert all(part in text for part in ("mnist-28-v1", "CC BY-SA 3.0", "LeCun", str(tmp_path)))


def test_check_verifies_what_is_there(tmp_path: Path) -> None:
    result = run("check", "mnist", "--root", str(tmp_path), "--json")
    assert result.return_value == 0
    (row,) = json.loads(result.stdout)
    assert row["verdict"] == "as on record"
    assert "train split is not there" in result.stderr
    assert isinstance(run("check", "cifar10", "--root", str(tmp_path)).exception, DataUnavailable)


def test_check_ends_with_the_integrity_code_on_wrong_pixels(tmp_path: Path) -> None:
    (tmp_path / "celeba64-half").mkdir()
    np.save(tmp_path / "celeba64-half" / "images.npy", np.zeros((10_000, 1, 1, 3), dtype=np.uint8))
    result = run("check", "celeba64-half", "--root", str(tmp_path))
    assert result.return_value == IntegrityError.exit_code
    assert "expected (3, 64, 64)" in result.stderr


def test_prepare_and_check_the_copy(tmp_path: Path) -> None:
    folder = tmp_path / "imagenet32-oord"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.savez_compressed(folder / "valid_32x32.npz", images)
    result = run("prepare", "imagenet32-oord", "--split", "test", "--root", str(tmp_path))
    assert result.exception is None
    copy = Path(result.stdout.strip())
    assert np.array_equal(np.load(copy), images.transpose(0, 3, 1, 2))
    (row,) = json.loads(run("check", "imagenet32-oord", "--root", str(tmp_path), "--json").stdout)
    assert row["verdict"] == "as prepared"
    np.save(copy, np.zeros((5, 3, 32, 32), dtype=np.uint8))
    result = run("check", "imagenet32-oord", "--root", str(tmp_path))
    assert result.return_value == IntegrityError.exit_code
    assert "changed since it was prepared" in result.stderr


def test_the_page_about_data_says_what_the_catalogue_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for name in BUILT_IN:
        dataset = get_dataset(name)
        facts = [
            f"`{name}`",
            f"`{dataset.preprocessing}`",
            dataset.terms,
            dataset.attribution,
            dataset.how_to_get.replace(ROOT_PLACEHOLDER, '"$FLOWZOO_DATA"'),
        ]
        digests = [split.sha256 for split in dataset.splits.values() if split.sha256]
        missing = [fact for fact in (*facts, *digests) if fact not in page]
        assert not missing, f"docs/data.md does not say of {name}: {missing}"
