"""``flowzoo eval`` against a manifest: recording, verifying, and every way not to be verified."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner

import flowzoo.flow
import flowzoo.manifest.raw
from flowzoo.api import Published
from flowzoo.atomic import sha256_file
from flowzoo.cli.main import cli, main
from flowzoo.config import config_hash
from flowzoo.errors import InputError, ManifestError
from flowzoo.evaluation.measure import evaluate
from flowzoo.evaluation.record import record
from flowzoo.manifest.read import Manifest, dump, parse
from flowzoo.manifest.schema import Data, Entry, Weights
from flowzoo.registry import reset_registry
from flowzoo.training.train import train
from flowzoo.weights.checkpoint import read_metadata
from flowzoo.weights.load import find_entry
from tests.trainings import save_images, tiny_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "glow-eighths"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("verdict")
    dataset = save_images(directory / "images.npy", 203)
    train(tiny_recipe("glow-tiny", dataset), directory / "run", device="cpu", progress=False)
    return directory / "run", dataset


@pytest.fixture
def manifest(trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of one released model without a measured figure, weights where loading finds them."""
    run, dataset = trained
    metadata = read_metadata(run / "best.safetensors")
    digest = sha256_file(run / "best.safetensors")
    (tmp_path / f"{digest}.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    entry = Entry(
        name=NAME,
        version=1,
        status="released",
        architecture="glow",
        config=metadata["config"],
        config_hash=config_hash("glow", metadata["config"]),
        num_params=metadata["num_params"],
        data=Data(id=dataset, preprocessing="numpy-as-is-v2", split="test", num_images=20, terms="made up"),
        license="Apache-2.0",
        citations=(),
        weights=Weights(
            filename="model.safetensors",
            sha256=digest,
            size=(run / "best.safetensors").stat().st_size,
            dtype="float32",
        ),
        published=Published(bpd=3.5, dataset="other images", source="nobody", protocol="another one"),
    )
    path = tmp_path / "weights_manifest.json"
    path.write_text(dump(Manifest(entries=(entry,))))
    monkeypatch.setenv("FLOWZOO_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setattr(flowzoo.manifest.raw, "core_manifest", lambda: str(path))
    return path


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["eval", *arguments, "--device", "cpu"], standalone_mode=False)
    assert result.exception is None, result.output
    return result.return_value, result.stdout


def verdict(*arguments: str) -> tuple[int, str]:
    code, text = call(*arguments, "--json")
    return code, json.loads(text)["verdict"]["state"]


def test_a_figure_is_recorded_and_then_verified(manifest: Path) -> None:
    assert verdict(NAME) == (1, "not recorded")
    assert call(NAME, "--record")[0] == 0
    measured = find_entry(NAME).measured
    assert measured is not None
    assert measured.num_images == measured.reconstruction_exact == 20
    assert measured.date is not None
    assert abs(datetime.now(UTC) - datetime.fromisoformat(f"{measured.date}T00:00:00Z")) < timedelta(days=2)
    assert measured.command == f"flowzoo eval {NAME}@1 --data numpy:images.npy"
    assert measured.versions["torch"] == torch.__version__
    assert "flowzoo-glow" in measured.versions
    assert find_entry(NAME).fingerprint is not None
    assert verdict(NAME) == (0, "verified")
    assert verdict(NAME, "--batch-size", "3") == (0, "verified")
    code, text = call(NAME)
    assert code == 0
    for part in ("measured here", "on record", "verified", "its protocol: another one", "20 of 20"):
        assert part.lower() in text.lower()


def test_what_is_not_the_entrys_protocol_is_not_verified(manifest: Path) -> None:
    call(NAME, "--record")
    assert verdict(NAME, "--limit", "5") == (0, "partial")
    assert verdict(NAME, "--seed", "1") == (1, "other protocol")
    assert verdict(NAME, "--samples", "2") == (1, "other protocol")
    assert verdict(NAME, "--dtype", "float64") == (1, "other protocol")
    assert verdict(NAME, "--split", "valid")[0] == 1
    assert verdict(NAME, "--split", "valid", "--limit", "5") == (1, "other protocol")


def change(path: Path, edit: Callable[[Entry], Entry]) -> None:
    entries = parse(path.read_text(), "x").entries
    path.write_text(dump(Manifest(entries=tuple(edit(entry) for entry in entries))))


def bpd(entry: Entry, difference: float) -> Entry:
    assert entry.measured is not None
    return dataclasses.replace(
        entry, measured=dataclasses.replace(entry.measured, bpd=entry.measured.bpd + difference)
    )


@pytest.mark.parametrize(
    ("difference", "state"), [(5e-5, "verified"), (2e-4, "not verified"), (-2e-4, "not verified")]
)
def test_the_tolerance_decides(manifest: Path, difference: float, state: str) -> None:
    call(NAME, "--record")
    change(manifest, lambda entry: bpd(entry, difference))
    assert verdict(NAME) == (0 if state == "verified" else 1, state)


def test_the_entrys_own_protocol_is_the_default(manifest: Path) -> None:
    call(NAME, "--record", "--samples", "3", "--seed", "4")
    code, text = call(NAME, "--json")
    assert code == 0
    protocol = json.loads(text)["protocol"]
    stated = {"samples": 3, "probes": 1, "conditional": False, "seed": 4, "dtype": "float32", "noise": "own"}
    assert protocol == stated


def test_a_partial_figure_is_not_recorded(manifest: Path) -> None:
    before = manifest.read_text()
    part = evaluate(NAME, limit=5, device="cpu", progress=False)
    with pytest.raises(ManifestError, match="whole test split"):
        record(part, find_entry(NAME))
    assert manifest.read_text() == before


def test_all(manifest: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    call(NAME, "--record")
    code, text = call("--all", "--json")
    assert code == 0
    assert [found["verdict"]["state"] for found in json.loads(text)] == ["verified"]

    def absent(entry: Entry) -> Entry:
        data = dataclasses.replace(entry.data, id="cifar10")
        return dataclasses.replace(entry, data=data)

    change(manifest, absent)
    code, text = call("--all", "--json", "--data-root", str(tmp_path))
    found: list[dict[str, Any]] = json.loads(text)
    assert (code, found[0]["verdict"]) == (1, "skipped"), "nothing verified is no success"
    assert "cifar10" in found[0]["reason"]
    result = CliRunner().invoke(cli, ["eval", "--all", "--data-root", str(tmp_path)])
    assert "skipped: no data" in result.stdout
    assert "cifar10" in result.stderr and "cifar10" not in result.stdout


def test_all_leaves_out_what_somebody_chose_not_to_have(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(NAME, "--record")
    listed = parse(manifest.read_text(), "x").entries[0]
    absent = dataclasses.replace(listed, name="of-nowhere", architecture="nowhere")
    manifest.write_text(dump(Manifest(entries=(listed, absent))))
    result = CliRunner().invoke(cli, ["eval", "--all", "--device", "cpu"], standalone_mode=False)
    assert result.return_value == 0, result.output
    assert "of-nowhere@1 " in result.stdout
    assert "skipped: its plugin is not installed" in result.stdout
    monkeypatch.setenv("FLOWZOO_DISABLE_PLUGINS", "glow")
    reset_registry()
    try:
        result = CliRunner().invoke(cli, ["eval", "--all"], standalone_mode=False)
        assert result.return_value == 1, "nothing was verified"
        assert result.stdout.count("\n") == 3
        assert "skipped: its plugin is disabled" in result.stdout
    finally:
        monkeypatch.undo()
        reset_registry()


def test_an_error_of_several_lines_does_not_tear_the_table(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str, **options: Any) -> Any:
        raise InputError("the first line\nand what to do about it")

    monkeypatch.setattr(flowzoo.evaluation.measure, "evaluate", fails)
    result = CliRunner().invoke(cli, ["eval", "--all"], standalone_mode=False)
    assert result.return_value == 1
    assert result.stdout.splitlines()[1].endswith("error: the first line")
    assert "and what to do about it" in result.stderr
    assert "and what to do about it" not in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_before_an_interrupt_is_shown(
    number: signal.Signals,
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(NAME, "--record")
    entries = parse(manifest.read_text(), "x").entries
    other = dataclasses.replace(entries[0], name="glow-interrupted")
    manifest.write_text(dump(Manifest(entries=(*entries, other))))
    measure = flowzoo.evaluation.measure.evaluate

    def interrupted(name: str, **options: Any) -> Any:
        if name == "glow-interrupted@1":
            signal.raise_signal(number)
        return measure(name, **options)

    monkeypatch.setattr(flowzoo.evaluation.measure, "evaluate", interrupted)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["eval", "--all", "--device", "cpu"])
    assert end.value.code == 130
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "what embeds the program has its handler back"
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == ["MODEL", NAME]
    assert "verified" in shown.out
    lines = shown.err.splitlines()
    assert lines[0] == f"1 of 2: {NAME}@1 ..."
    assert any(line.startswith(f"{NAME}@1: ") and line.endswith(" verified") for line in lines)


def test_explain_measures_nothing(manifest: Path) -> None:
    code, text = call(NAME, "--explain", "--samples", "7")
    assert code == 0
    assert "k = 7" in text
    assert "64 ln 2" in text


def test_options_for_one_model_do_not_go_with_all(manifest: Path) -> None:
    for option in ("--explain", "--record", "--per-image=x.csv"):
        result = CliRunner().invoke(cli, ["eval", "--all", option])
        assert result.exit_code == 2
        assert "one model" in result.stderr


def test_what_no_manifest_lists_is_not_measured_for_a_record(tmp_path: Path, manifest: Path) -> None:
    result = CliRunner().invoke(cli, ["eval", str(tmp_path), "--record"])
    assert isinstance(result.exception, InputError)
    assert "not a model's name" in str(result.exception)


def with_measured(entry: Entry, **changes: Any) -> Entry:
    assert entry.measured is not None
    return dataclasses.replace(entry, measured=dataclasses.replace(entry.measured, **changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: dataclasses.replace(e, data=dataclasses.replace(e.data, digest="0" * 64)), "digest"),
        (
            lambda e: dataclasses.replace(e, data=dataclasses.replace(e.data, preprocessing="x")),
            "preprocessing x",
        ),
        (lambda e: with_measured(e, dequantization="variational"), "dequantization uniform"),
        (lambda e: with_measured(e, num_images=19), "number of measured images 20"),
    ],
)
def test_every_stated_fact_of_the_protocol_is_compared(
    manifest: Path, change: Callable[[Entry], Entry], words: str
) -> None:
    call(NAME, "--record")
    change_file = json.loads(manifest.read_text())
    change_entry = change(parse(json.dumps(change_file), "x").entries[0])
    manifest.write_text(dump(Manifest(entries=(change_entry,))))
    code, text = call(NAME, "--json")
    found = json.loads(text)["verdict"]
    assert (code, found["state"]) == (1, "other protocol")
    assert words.split(maxsplit=1)[0] in found["reason"]


def test_publish_records_a_listed_models_figures(manifest: Path) -> None:
    arguments = ["publish", NAME, "--record", "--samples", "2", "--json"]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.exception is None, result.output
    measured = find_entry(NAME).measured
    assert measured is not None and measured.samples == 2
    assert json.loads(result.stdout)["bpd"] == measured.bpd
    assert verdict(NAME) == (0, "verified")


@pytest.mark.parametrize(
    "edit",
    [
        lambda e: with_measured(e, tolerance=1e9),
        lambda e: with_measured(e, seed=2**64),
        lambda e: dataclasses.replace(e, fingerprint=dataclasses.replace(e.fingerprint, tolerance=1e9)),
    ],
)
def test_a_manifest_under_which_anything_would_be_verified_is_not_read(
    manifest: Path, edit: Callable[[Entry], Entry]
) -> None:
    call(NAME, "--record")
    change(manifest, edit)
    result = CliRunner().invoke(cli, ["eval", NAME, "--device", "cpu"], standalone_mode=False)
    assert isinstance(result.exception, ManifestError)


def test_a_seed_that_stands_for_another_is_refused(manifest: Path) -> None:
    with pytest.raises(InputError, match=r"2\^64"):
        evaluate(NAME, seed=2**64, device="cpu", progress=False)


def test_a_run_called_like_a_model_is_not_taken_for_it(
    manifest: Path, trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = manifest.read_text()
    (tmp_path / NAME).symlink_to(trained[0])
    monkeypatch.chdir(tmp_path)
    for options in ([], ["--record"]):
        result = CliRunner().invoke(cli, ["eval", NAME, "--device", "cpu", *options], standalone_mode=False)
        assert isinstance(result.exception, InputError)
        assert f"'./{NAME}' for the directory" in str(result.exception)
    assert verdict(f"./{NAME}") == (0, "no entry")
    assert verdict(f"{NAME}@1") == (1, "not recorded")
    assert manifest.read_text() == before


def test_a_published_figure_stands_beside_its_own_images_only(manifest: Path, tmp_path: Path) -> None:
    other = save_images(tmp_path / "others.npy", 100)
    _, text = call(NAME, "--json", "--data", other)
    found = json.loads(text)["verdict"]
    assert found["published_bpd"] is None
    assert "not compared" in found["published_note"]
    assert json.loads(call(NAME, "--json")[1])["verdict"]["published_bpd"] == 3.5


def test_a_figure_that_is_not_a_number_fails_in_valid_json(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_prob = flowzoo.flow.Flow.log_prob
    monkeypatch.setattr(flowzoo.flow.Flow, "log_prob", lambda *a, **k: log_prob(*a, **k) * float("nan"))
    code, text = call(str(trained[0]), "--json")
    found = json.loads(text)
    assert (code, found["bpd"], found["stderr"]) == (1, None, None)
    assert found["verdict"]["state"] == "not finite"
    assert call(str(trained[0]))[0] == 1


@pytest.mark.parametrize("place", ["missing/../file/x.csv", "fifo", "link"])
def test_a_table_that_cannot_be_written_is_refused_before_the_measurement(
    trained: tuple[Path, str], tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    monkeypatch.setattr("flowzoo.evaluation.measure.evaluate", lambda *_, **__: pytest.fail("measured"))
    arguments = ["eval", str(trained[0]), "--per-image", str(tmp_path / place)]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(result.exception, InputError)
    assert (tmp_path / "file").read_text() == "mine"
