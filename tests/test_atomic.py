"""Files that are whole or absent: under equal process numbers, planted links, devices and errors."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flowzoo import atomic
from flowzoo.errors import CheckpointError


def test_writers_of_one_process_number_do_not_meet(tmp_path: Path) -> None:
    """Threads have the number in common, as processes in containers of their own have."""
    path, barrier, failures = tmp_path / "file", threading.Barrier(8), []

    def write(number: int) -> None:
        def chunks() -> object:
            for _ in range(20):
                barrier.wait(30)
                yield bytes([number]) * 1000

        try:
            atomic.write_chunks(path, chunks())  # type: ignore[arg-type]
        except (CheckpointError, threading.BrokenBarrierError) as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(path.read_bytes())) == 1
    assert path.stat().st_size == 20_000
    assert list(tmp_path.iterdir()) == [path]


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / f"{atomic.TEMPORARY}guessed-file").symlink_to(victim)
    with pytest.raises(CheckpointError):
        atomic.write_text(tmp_path / "file", "text")
    assert victim.read_text() == "precious"


def test_a_link_in_the_files_place_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    atomic.write_text(tmp_path / "file", "text")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "text"


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs the right to make a device")
    before = null.stat().st_ino
    assert atomic.write_text(null, "text")[1] == 4
    assert null.stat().st_ino == before
    assert stat.S_ISCHR(null.stat().st_mode)


def test_a_pipe_gets_the_text(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    atomic.write_text(pipe, "text")
    reader.join(10)
    assert found == ["text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("redirected", [True, False])
def test_standard_output_stays_standard_output(redirected: bool, tmp_path: Path) -> None:
    program = "from pathlib import Path; from flowzoo.atomic import write_text; write_text(Path('/dev/stdout'), 'text')"
    before = Path("/dev/stdout").readlink()
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=out if redirected else subprocess.PIPE,
            text=True,
            check=True,
        )
    assert ((tmp_path / "out").read_text() if redirected else done.stdout) == "text"
    assert Path("/dev/stdout").readlink() == before


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def broken() -> object:
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="free some space"):
        atomic.write_chunks(path, broken())  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    with atomic.new_directory(path) as new:
        (new / "a").write_text("1")

    def broken() -> None:
        with atomic.new_directory(path) as new:
            (new / "a").write_text("2")
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert (path / "a").read_text() == "1"
    with atomic.new_directory(path) as new:
        (new / "b").write_text("3")
    assert [file.name for file in path.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_as_open_as_the_umask_says_and_its_name_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    old = os.umask(0o027)
    try:
        atomic.write_text(path, "text")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
