"""Runs that a kill, a disk or a stranger damaged: mended where nothing is lost, else refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from flowzoo.errors import CheckpointError, IntegrityError
from flowzoo.training.export import write_export
from flowzoo.training.run_dir import RunDir
from flowzoo.training.runs import list_runs
from flowzoo.training.state import list_checkpoints, load_checkpoint
from flowzoo.training.train import build_model, train_flow
from flowzoo.weights.checkpoint import read_metadata
from flowzoo.weights.safetensors_header import read_header
from tests.trainings import CPU, image_set, tiny_recipe

IMAGES = (image_set(160), image_set(40, seed=1))
RECIPE = tiny_recipe(steps=4, log_every=2, validate_every=2, samples=0)


def go(out: Path, **options: Any) -> list[str]:
    said: list[str] = []
    train_flow(build_model(RECIPE), RECIPE, out, IMAGES, CPU, progress=False, say=said.append, **options)
    return said


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("damage") / "run"
    go(out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunDir:
    """A copy of a finished run."""
    import shutil

    return RunDir(Path(shutil.copytree(finished, tmp_path / "run")))


def sealed(facts: dict[str, Any]) -> str:
    """A state.json whose digest is right, whatever it says."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return json.dumps(facts | {"digest": hashlib.sha256(text.encode()).hexdigest()})


DAMAGED_PROGRESS: dict[str, Any] = {
    "no table": 5,
    "negative": {"step": -4},
    "another step": {"step": 3},
    "not finite": {"step": 4, "seconds": float("nan")},
    "position": {"step": 4, "position": ["x"]},
    "position of strings": {"step": 4, "position": {"epoch": "x"}},
    "text": {"step": "4"},
    "unknown key": {"step": 4, "invented": 1},
}


@pytest.mark.parametrize("progress", DAMAGED_PROGRESS.values(), ids=DAMAGED_PROGRESS)
def test_damaged_progress(progress: Any, run: RunDir) -> None:
    path = list_checkpoints(run.checkpoints)[0] / "state.json"
    facts = json.loads(path.read_text())
    facts.pop("digest")
    path.write_text(sealed(facts | {"progress": progress}))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path.parent)


@pytest.mark.parametrize("text", ["[]", "{", "null", "[" * 100_000, '{"digest": ' + "1" * 5000 + "}", "{}"])
def test_damaged_state_files(text: str, run: RunDir) -> None:
    for path in list_checkpoints(run.checkpoints):
        (path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match="Every checkpoint"):
        go(run.path)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(run: RunDir) -> None:
    path = list_checkpoints(run.checkpoints)[0]
    (path / "state.json").unlink()
    os.mkfifo(path / "state.json")
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_checkpoint(path)
    (run.path / "run.json").unlink()
    os.mkfifo(run.path / "run.json")
    with pytest.raises(CheckpointError, match="not a regular file"):
        run.header()


@pytest.mark.parametrize(
    "row",
    [
        '{"kind": "train", "step": "4"}',
        '{"kind": "valid", "step": 4}',
        '{"kind": "valid", "step": 4, "bpd": [1]}',
        '{"kind": "train", "step": 4, "seconds": NaN}',
        '{"kind": 5}',
        "[1]",
        '{"kind": "tra{"kind": "end"}',
        "[" * 100_000,
        '{"step": ' + "1" * 5000 + "}",
    ],
)
def test_a_damaged_row_is_named_and_left_out_when_the_run_goes_on(row: str, run: RunDir) -> None:
    sound = run.rows()
    lines = run.metrics.read_text().splitlines()
    run.metrics.write_text("\n".join([*lines[:2], row, *lines[2:]]) + "\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: line 3 "):
        run.rows()
    [listed] = list_runs(run.path)
    assert "line 3" in listed["state"]
    assert any("1 damaged line" in line for line in go(run.path))
    assert run.rows()[: len(sound)] == sound


@pytest.mark.parametrize("kept", [0, 1, 40, -20])
def test_rows_cut_by_a_kill_are_mended(kept: int, run: RunDir) -> None:
    """Nothing of the file, a byte, half of the header, all but the end of the last row."""
    whole, text = run.rows(), run.metrics.read_text()
    run.metrics.write_text(text[:kept] if kept else "")
    go(run.path)
    rows = run.rows()
    assert rows[0]["kind"] == "header"
    assert rows[0]["recipe"] == whole[0]["recipe"]
    assert rows[-1]["kind"] == "end"
    assert run.metrics.read_text().count("\n") == len(rows)


@pytest.mark.parametrize(
    "change",
    [
        {"before": {"step": "x"}},
        {"before": [1]},
        {"recipe": 5},
        {"total_steps": "many"},
        {"environment": "here"},
        {"data": [1]},
        {"extended": [{"step": "x", "steps": 1}]},
        {"extended": 7},
    ],
    ids=str,
)
def test_a_damaged_header_is_refused(change: dict[str, Any], run: RunDir) -> None:
    path = run.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=f"damaged: {next(iter(change))} "):
        go(run.path)
    [listed] = list_runs(run.path)
    assert "damaged" in listed["state"]


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"schema": ' + "1" * 5000 + "}", "\x00"])
def test_a_header_that_is_none_is_refused(text: str, run: RunDir) -> None:
    (run.path / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"run\.json"):
        go(run.path)


def test_leftovers_of_a_killed_writer_go(tmp_path: Path) -> None:
    """Before there is a run, too: the first file that is written may be the one that is cut short."""
    for place in (
        tmp_path,
        tmp_path / "checkpoints",
        tmp_path / "checkpoints" / "x",
        tmp_path / "samples",
    ):
        place.mkdir(exist_ok=True)
        (place / ".partial-1-x").write_text("half")
    go(tmp_path)
    assert not list(tmp_path.rglob(".partial-*"))


def test_a_step_saved_again_is_never_out_of_its_place(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run that is started again writes its last checkpoint anew; nothing sound is moved away for that."""
    [newest, *_] = list_checkpoints(run.checkpoints)
    moved: list[str] = []
    whole = Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, to: (moved.append(path.name), whole(path, to))[1])
    go(run.path)
    assert newest.name not in moved
    assert load_checkpoint(newest)[0].step == 4


def test_runs_count_their_own_steps(run: RunDir) -> None:
    path = run.path / "run.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"before": {"seconds": 9.0, "images": 64, "step": 300}})
    )
    [listed] = list_runs(run.path)
    assert (listed["step"], listed["steps"], listed["steps_before"]) == (4, 4, 300)
    assert listed["best_step"] in (2, 4)
    assert listed["images"] == 4 * 16 + 64


def test_files_cut_while_they_are_read_are_errors_and_no_crash(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapped file that loses its pages ends the process with SIGBUS, which nothing can catch."""

    def cut_after_the_header(where: Path) -> Any:
        header = read_header(where)
        os.truncate(where, header.data_begin + 10)
        return header

    metadata = read_metadata(run.best)
    monkeypatch.setattr("flowzoo.weights.checkpoint.read_header", cut_after_the_header)
    with pytest.raises(CheckpointError, match="cut while it was read"):
        load_checkpoint(list_checkpoints(run.checkpoints)[0])
    with pytest.raises(IntegrityError, match="cut while it was read"):
        write_export(run.path, tmp_path, run.best, metadata, name="cut")


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl"])
def test_a_pipe_in_the_place_of_a_runs_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="no regular file"):
        _ = RunDir(tmp_path).exists
