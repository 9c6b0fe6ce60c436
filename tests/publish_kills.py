"""Kills ``publish`` with SIGKILL before each of its file-system events, then runs it again.

``python -m tests.publish_kills DIRECTORY plugin|hub [STRIDE]`` prints one JSON line per event, or for every STRIDE-th.
Everything is imported once, each publication runs in a forked child. Measuring writes no files and is left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import flowzoo
from flowzoo.manifest.read import parse
from flowzoo.manifest.schema import Entry, Measured, Sampling
from flowzoo.publishing import plugin_package, stage
from flowzoo.testing import randomize
from flowzoo.training.export import weights_metadata
from flowzoo.weights.checkpoint import save_weights
from flowzoo.weights.fingerprint import take_fingerprint
from tests.hub_server import HubServer

EVENTS = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
NAME, REPO = "nice-mnist", "org/nice-mnist"


class Figures:
    """Figures of a flow that nobody measured."""

    def __init__(self, flow: flowzoo.flow.Flow) -> None:
        self.flow = flow

    def of(self, entry: Entry) -> Entry:
        measured = Measured(
            bpd=6.5, stderr=0.01, dequantization="uniform", samples=1, seed=0, dtype="float32", num_images=10_000,
            tolerance=1e-4, versions={}, command=f"flowzoo eval {entry.key}",
        )  # fmt: skip
        sampling = Sampling(drawn=10_000, finite=10_000, temperature=1.0, seed=0)
        fingerprint = take_fingerprint(self.flow)
        return dataclasses.replace(entry, measured=measured, fingerprint=fingerprint, sampling=sampling)


def make_run(where: Path, seed: int) -> Path:
    """A training run with weights of its own."""
    flow = randomize(flowzoo.create("nice", image_shape=(1, 28, 28), hidden_layers=1, hidden_units=4), seed)
    where.mkdir(parents=True)
    save_weights(flow, where / "best.safetensors", weights_metadata(flow, NAME, "mnist"))
    recipe = {"schema": 1, "name": NAME, "train": {"steps": 3}, "data": {"dataset": "mnist"}}
    header = {"kind": "header", "recipe": recipe, "total_steps": 3, "environment": {}}
    (where / "run.json").write_text(json.dumps(header))
    row = {"kind": "valid", "step": 3, "bpd": 5.0, "seconds": 7.2, "images": 30}
    (where / "metrics.jsonl").write_text("\n".join(json.dumps(r) for r in (header, row)) + "\n")
    return where


def watch(root: Path, kill_before: int | None, counted: Path) -> None:
    """Counts the events below ``root``; dies before one of them, or keeps their number in a file outside."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & WRITING)
        if not (event in EVENTS or writes) or not str(arguments[0]).startswith(str(root)):
            return
        count += 1
        if count == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        if kill_before is None:
            os.pwrite(descriptor, f"{count:8d}".encode(), 0)

    descriptor = os.open(counted, os.O_RDWR | os.O_CREAT)
    sys.addaudithook(hook)


def in_child(work: Callable[[], None]) -> int:
    """Runs ``work`` in a forked child; returns its wait status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitpid(child, 0)[1]


def publish_in_plugin(root: Path, run: str) -> None:
    """One publication into the plugin under ``root``."""
    package = root / "project" / "flowzoo_nice"
    plugin_package.package_directory = lambda _: package  # type: ignore[attr-defined]
    plugin_package.publish_in_plugin(root / run, root / "manifest" / "m.json")


def publish_on_hub(root: Path, run: str) -> None:
    """One publication on the server that HF_ENDPOINT names."""
    from flowzoo.cli.publish import publish

    manifest = root / "manifest" / "m.json"
    publish.main(
        [str(root / run), "--repo", REPO, "--yes", "--manifest", str(manifest), "--json"],
        standalone_mode=False,
    )


def broken(root: Path) -> list[str]:
    """Everything in which the manifest and the package disagree."""
    found = []
    for entry in parse((root / "manifest" / "m.json").read_text(), "manifest").entries:
        assert entry.weights is not None
        path = root / "project" / "flowzoo_nice" / "weights" / entry.weights.filename
        if entry.weights.revision is None and not path.is_file():
            found.append(f"{path.name} is missing")
        elif path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != entry.weights.sha256:
            found.append(f"{path.name} is another file")
    return found


def left(root: Path) -> list[str]:
    """Files that a finished publication should not leave."""
    stray = [str(path.relative_to(root)) for path in root.rglob(".partial-*")]
    weights = root / "project" / "flowzoo_nice" / "weights"
    listed = {
        e.weights.filename
        for e in parse((root / "manifest" / "m.json").read_text(), "m").entries
        if e.weights
    }
    return stray + [path.name for path in weights.glob("*.safetensors") if path.name not in listed]


def named_in_card(server: HubServer) -> str | None:
    """The commit that the card on the Hub names in its first line of code, if it holds the weights there now."""
    now = server.commits.get((REPO, server.heads.get(REPO, "")), {})
    found = re.search(rf"hf:{REPO}@([0-9a-f]{{40}})", now.get("README.md", b"").decode())
    if found is None:
        return None
    then = server.commits.get((REPO, found[1]), {})
    file = f"{NAME}.safetensors"
    return found[1] if then.get(file) is not None and then.get(file) == now.get(file) else None


def prepare(root: Path, kind: str) -> None:
    """A plugin with a model in it for ``plugin``; an empty manifest for ``hub``."""
    (root / "project" / "flowzoo_nice" / "weights").mkdir(parents=True)
    (root / "project" / "pyproject.toml").write_text("")
    (root / "manifest").mkdir()
    (root / "manifest" / "m.json").write_text('{"schema": 1, "models": []}')
    for number in (1, 2):
        make_run(root / f"run{number}", number)
    if kind == "plugin":
        publish_in_plugin(root, "run1")


def import_the_command() -> None:
    """Imports what a publication imports when it gets there, once for all children."""
    importlib.import_module("flowzoo.cli.publish")
    from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download  # noqa: F401 - lazy until it is named


def main(directory: Path, kind: str, stride: int) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    plugin_package.measure_model = lambda _, flow, *__, **___: Figures(flow)  # type: ignore[attr-defined]
    stage.measure_model = lambda _, flow, *__, **___: Figures(flow)  # type: ignore[attr-defined]
    publish = publish_in_plugin if kind == "plugin" else publish_on_hub
    directory.mkdir(parents=True)
    template, counted = directory / "template", directory.parent / "count"
    prepare(template, kind)
    with HubServer() as server:
        server.large = "never"
        # The Hub itself and not a mirror, which is sent no token. The client reads it when it is first imported.
        os.environ |= {"HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(directory / "cache")}
        os.environ |= {"HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
        import_the_command()

        def session(root: Path, kill_before: int | None) -> None:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            watch(root, kill_before, counted)
            publish(root, "run2")

        whole = directory / "whole"
        shutil.copytree(template, whole)
        assert in_child(lambda: session(whole, None)) == 0, "the undisturbed publication failed"
        for number in range(1, int(counted.read_text()) + 1, stride):
            root = directory / f"event{number}"
            shutil.copytree(template, root)
            server.heads.clear()
            killed = in_child(lambda root=root, number=number: session(root, number))  # type: ignore[misc]
            after_kill = broken(root)
            again = in_child(lambda root=root: session(root, None))  # type: ignore[misc]
            entries = parse((root / "manifest" / "m.json").read_text(), "manifest").entries
            row = {
                "event": number,
                "killed": os.WIFSIGNALED(killed),
                "broken": after_kill,
                "again": again == 0,
                "broken_again": broken(root),
                "left": left(root),
                "revision": [entry.weights.revision for entry in entries if entry.weights],
                "named": named_in_card(server),
            }
            print(json.dumps(row), flush=True)
            shutil.rmtree(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
