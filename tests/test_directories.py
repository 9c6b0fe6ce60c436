"""Directories are taken only if they are empty or ours, and change as a whole."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from flowzoo.directories import exclusive, replaced_directory
from flowzoo.errors import InputError
from flowzoo.manifest.write import read_manifest, write_entry
from tests.manifest_examples import manifest_text, unpublished_entry


def write(path: Path, text: str, *, ours: bool) -> None:
    with replaced_directory(path, lambda _: ours, "one of ours") as new:
        (new / "file").write_text(text)


def test_what_is_missing_empty_or_ours_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write(path, "first", ours=False)
    write(path, "second", ours=True)
    assert (path / "file").read_text() == "second"
    (path / "file").unlink()
    write(path, "third", ours=False)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\)"):
        write(tmp_path, "x", ours=False)
    with pytest.raises(InputError, match="not a directory"):
        write(tmp_path / "thesis.tex", "x", ours=True)
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_an_error_leaves_it_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "out", "before", ours=False)
    with pytest.raises(TypeError):
        write(tmp_path / "out", 0, ours=True)  # type: ignore[arg-type]
    assert (tmp_path / "out" / "file").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".partial-1-out", tmp_path / ".partial-2-out"
    for path in (dead, alive):
        path.mkdir()
    with exclusive(alive):
        write(tmp_path / "out", "x", ours=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "out"]


def _add(path: Path, number: int) -> None:
    from flowzoo.manifest.read import parse

    [entry] = parse(manifest_text(unpublished_entry(f"nice-example-{number}")), "x").entries
    write_entry(path, entry)


def test_entries_written_by_several_processes_at_once_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(manifest_text())
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add, args=(path, number)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert len(read_manifest(path).entries) == 6
    assert os.listdir(tmp_path) == ["m.json"]  # noqa: PTH208
