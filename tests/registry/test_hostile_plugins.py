"""Plugins that do their worst when they are imported or looked at: each is a row that says so, and harms nobody."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowzoo import factory
from flowzoo.errors import ConfigError, PluginError, exhausted
from flowzoo.factory import create
from flowzoo.registry import Plugin, PluginState, discover, get_plugin, isolation, survey
from flowzoo.registry.isolation import ends_in
from flowzoo.registry.surroundings import mute, output_to_stderr
from tests.manifest_examples import example_entry, manifest_text
from tests.plugin_factory import CONFIG, Distribution, broken, good, plugin_source

Install = Callable[..., None]

SOUND = plugin_source("waves", "zoo_waves")


def changed(field: str, value: str, before: str = "") -> str:
    """A plugin's source in which a field of its Architecture is something else."""
    return f"{before}\n{SOUND}\n    object.__setattr__(ARCHITECTURE, {field!r}, {value})\n"


MAPPING = """
    from collections.abc import Mapping
    class Presets(Mapping):
        def __len__(self): return 1
        def __getitem__(self, key): raise KeyError(key)
        def __iter__(self):
            {body}
"""
RAISES = MAPPING.format(body="raise SystemExit('no')")
HANGS = MAPPING.format(body="import threading; threading.Event().wait()")
ENDLESS = MAPPING.format(body="import itertools; yield from map(str, itertools.count())").replace(
    "raise KeyError(key)", "return None"
)

CASES = {
    "manifest is a number": (changed("manifest", "123"), "manifest is 123"),
    "summary is None": (changed("summary", "None"), "summary is None"),
    "summary is a number": (changed("summary", "7"), "summary is 7"),
    "name is bytes": (changed("name", "b'waves'"), "name is b'waves'"),
    "build is None": (changed("build", "None"), "build is None"),
    "presets is no mapping": (changed("presets", "['tiny']"), "presets is a list"),
    "presets raise": (changed("presets", "Presets()", RAISES), "SystemExit"),
    "presets without end": (changed("presets", "Presets()", ENDLESS), "more than 1,000 presets"),
    "a preset's summary is None": (changed("presets['tiny'].__class__", "1") and SOUND.replace(
        'summary="8x8 images"', "summary=None"), "preset 'tiny': summary is None"),
    "a preset's config is a list": (SOUND.replace('{"image_shape": (1, 8, 8)}', "[]"), "config must be a mapping"),
    "a preset's config has numbers for names": (SOUND.replace('{"image_shape"', '{1: 2, "image_shape"'), "config must"),
    "a citation is a text": (changed("citations", "('Doe 2026',)"), "citations must be a tuple"),
    "a summary without end": (changed("summary", "'x' * 10**6"), "summary has 1,000,000 characters"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "sys.path cleared": (f"    import sys\n    sys.path.clear()\n{SOUND}", "entries of sys.path"),
    "sys.path replaced": (f"    import sys\n    sys.path = []\n{SOUND}", "entries of sys.path"),
    "finders removed": (f"    import sys\n    sys.meta_path.clear()\n{SOUND}", "finders of sys.meta_path"),
    "directory changed": (f"    import os\n    os.chdir('/')\n{SOUND}", "changed the working directory"),
    "descriptor closed": (f"    import os\n    os.close(2)\n{SOUND}", "closed or replaced stderr"),
    "message without end": ("raise ValueError('x' * 10**7)", "ValueError: xxx"),
    "message that steers the terminal": ("raise ValueError('\\x1b[2J')", "ValueError: ?[2J"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "SECONDS", 1.0)


@pytest.mark.parametrize("case", CASES)
def test_the_worst_is_a_row(install: Install, case: str, tmp_path: Path) -> None:
    source, cause = CASES[case]
    before = list(sys.path), list(sys.meta_path), sys.stdout, sys.stderr, Path.cwd()
    install(broken("waves", source), good("fine"))
    before[0].insert(0, sys.path[0])
    plugin = get_plugin("waves")
    assert (plugin.state, plugin.architecture) == (PluginState.BROKEN, None)
    assert cause in plugin.cause
    assert len(plugin.cause) <= 600
    assert get_plugin("fine").state is PluginState.OK
    assert set(before[0]) <= set(sys.path)
    assert [list(sys.meta_path), sys.stdout, sys.stderr, Path.cwd()] == list(before[1:])
    with pytest.raises(PluginError, match="zoo-waves"):
        create("waves-tiny")


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.sleep(3600)",
        "import sys\nwhile not hasattr(sys, 'zoo'): pass",
        changed("presets", "Presets()", HANGS),
    ],
    ids=["sleeps", "runs", "when its presets are read"],
)
def test_what_hangs_is_given_up(install: Install, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    # Names of their own: whoever imports a module that hangs waits for it.
    name = f"hangs{len(source)}"
    install(broken(name, source), good("fine"))
    plugin = get_plugin(name)
    monkeypatch.setattr(sys, "zoo", "stop", raising=False)
    assert plugin.state is PluginState.BROKEN
    assert "given up after 1 seconds" in plugin.cause
    assert get_plugin("fine").state is PluginState.OK


def test_a_real_ctrl_c_is_the_users_and_leaves_no_verdict(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "SECONDS", 60.0)
    install(broken("slow", f"    import time\n    time.sleep(2)\n{plugin_source('slow', 'zoo_slow')}"))
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        get_plugin("slow")
    assert get_plugin("slow").state is PluginState.OK


def test_what_hangs_prints_nowhere_else_and_hides_nothing(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(broken("prints", "import time\nprint('before')\ntime.sleep(3600)"))
    assert get_plugin("prints").state is PluginState.BROKEN
    print("after")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("after\n", "before\n")


def test_a_long_name_is_shown_short(install: Install) -> None:
    install(Distribution("zoo-long", {"x" * 300: "zoo_long:A", "y" * 9: "z" * 10_000}, {}), good("fine"))
    rows: list[Plugin] = [plugin for plugin in discover().values() if plugin.distribution == "zoo-long"]
    assert [plugin.state for plugin in rows] == [PluginState.BROKEN] * 2
    assert "300 characters" in rows[0].cause
    assert max(len(plugin.name) for plugin in rows) <= 64
    assert max(len(plugin.entry_point) for plugin in rows) <= 200


def test_ten_thousand_entry_points_are_one_row(install: Install) -> None:
    install(Distribution("zoo-many", {f"a{i}": "zoo_many:A" for i in range(10_000)}, {}))
    [row] = [plugin for plugin in survey().values() if plugin.distribution == "zoo-many"]
    assert "10,000 architectures" in row.cause


CONFIG_ENDS = CONFIG + "\n        def __post_init__(self):\n            {}\n"


@pytest.mark.parametrize(
    "body", ["raise SystemExit(0)", "1 / 0", "raise ValueError('hidden is odd')", "raise KeyError('x')"]
)
def test_a_config_that_fails_on_its_values_names_its_class(install: Install, body: str) -> None:
    made = good("waves")
    install(Distribution(made.name, made.entries, {**made.files, "config.py": CONFIG_ENDS.format(body)}))
    with pytest.raises(ConfigError, match=r"waves-tiny: zoo_waves\.config\.Config refuses its values"):
        create("waves-tiny")


def test_what_a_config_and_a_model_print_does_not_reach_stdout(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    made = good("waves")
    config = CONFIG_ENDS.format("print('config')")
    model = made.files["model.py"].replace("def build(config):", "def build(config):\n        print('model')")
    install(Distribution(made.name, made.entries, {**made.files, "config.py": config, "model.py": model}))
    create("waves-tiny")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("line", ["while True: pass", "import time; time.sleep(3600)"])
def test_a_build_that_hangs_is_given_up(install: Install, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(factory, "BUILD_SECONDS", 0.3)
    made = good("waves")
    model = made.files["model.py"].replace("def build(config):", f"def build(config):\n        {line}")
    install(Distribution(made.name, made.entries, {**made.files, "model.py": model}))
    with pytest.raises(PluginError, match=r"zoo-waves.*does not end, and was given up after 0\.3 seconds"):
        create("waves-tiny")


def test_ctrl_c_ends_a_build_and_a_build_leaves_ctrl_c_alone(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "BUILD_SECONDS", 0.3)
    install(good("waves"))
    create("waves-tiny")
    time.sleep(0.4)  # Nothing of the first build may interrupt what comes after it.
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), ends_in(5):
        time.sleep(5)


def test_a_build_without_enough_memory_is_no_fault_of_its_plugin(install: Install) -> None:
    made = good("waves")
    line = "import torch; torch.empty(10**15)"
    model = made.files["model.py"].replace("def build(config):", f"def build(config):\n        {line}")
    install(Distribution(made.name, made.entries, {**made.files, "model.py": model}))
    with pytest.raises(RuntimeError, match="allocate memory") as caught:
        create("waves-tiny")
    assert exhausted(caught.value) == "memory"


# --- the command line, in a process of its own -------------------------------------------------------------


def run(site: Path, *arguments: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "flowzoo", *arguments],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import sys\nsys.stdout.close()\nsys.__stdout__.close()", "closed sys.stdout"),
        ("import os\nos.close(1)\nos.close(2)", "closed or replaced stdout"),
        ("import os\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)", "closed or replaced stdout"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=False).start()",
            "leaves the thread",
        ),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_every_command_goes_on(tmp_path: Path, source: str, cause: str) -> None:
    text = "\n".join(f"    {line}" for line in source.splitlines())
    broken("waves", f"{text}\n{SOUND}").install_metadata(tmp_path)
    done = run(tmp_path, "plugins", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert cause in rows["waves"]["cause"]
    assert rows["glow"]["state"] == "ok"
    listed = run(tmp_path, "list")
    assert listed.returncode == 0
    assert "glow-mnist" in listed.stdout
    assert "Not usable: waves" in listed.stderr


IMPATIENT = """
from flowzoo.registry import isolation
isolation.SECONDS = 1.0
from flowzoo.cli.main import main
main(["list", "--json"])
"""


def test_what_prints_for_ever_spoils_no_result(tmp_path: Path) -> None:
    broken("waves", "while True:\n    print('x' * 1000)").install_metadata(tmp_path)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT], env={**os.environ, "PYTHONPATH": path}, capture_output=True,
        text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0
    assert "glow-mnist" in {row["model"] for row in json.loads(done.stdout)}
    assert "Not usable: waves" in done.stderr
    assert len(done.stderr) < 2_000_000


def test_a_thread_that_is_muted_before_the_streams_are_put_back_is_never_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = io.StringIO()
    monkeypatch.setattr(sys, "stdout", heard)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    back = threading.Event()
    thread = threading.Thread(target=lambda: (back.wait(), print("from the thread")))
    thread.start()
    with output_to_stderr():
        mute(thread)
    back.set()
    thread.join()
    print("from here")
    assert heard.getvalue() == "from here\n"


def test_a_thread_without_further_ado_ends_with_the_program(tmp_path: Path) -> None:
    start = "    import threading, time\n    threading.Thread(target=time.sleep, args=(3600,)).start()\n"
    broken("waves", start + SOUND).install_metadata(tmp_path)
    done = run(tmp_path, "plugins", "--json")
    assert {row["name"]: row["state"] for row in json.loads(done.stdout)}["waves"] == "ok"


def test_a_data_sets_plugin_may_print(tmp_path: Path) -> None:
    (tmp_path / "zoo_dots.py").write_text("print('hello')\ndef make():\n    print('again')\n    return 1\n")
    info = tmp_path / "zoo_dots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-dots\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flowzoo.datasets]\ndots = zoo_dots:make\n")
    done = run(tmp_path, "data", "list", "--json")
    assert done.returncode == 0
    assert "dots" in {row["id"] for row in json.loads(done.stdout)}
    assert done.stderr.startswith("hello\nagain\n")


@pytest.mark.parametrize("what", ["pipe", "device", "large"])
def test_metadata_that_are_no_file_are_a_row(tmp_path: Path, what: str) -> None:
    info = tmp_path / "zoo_odd-2.0.dist-info"
    info.mkdir()
    place = info / "entry_points.txt"
    if what == "pipe":
        os.mkfifo(place)
    elif what == "device":
        place.symlink_to("/dev/zero")
    else:
        place.write_text("# nothing\n" * 1_000_000)
    done = run(tmp_path, "plugins", "--json", timeout=20)
    [row] = [row for row in json.loads(done.stdout) if row["distribution"] == "zoo_odd"]
    assert (row["state"], row["version"]) == ("broken", "2.0")
    assert "entry_points.txt" in row["cause"]
    assert run(tmp_path, "data", "list", timeout=20).returncode == 0


def test_metadata_that_cannot_be_read_contest_no_name(install: Install, tmp_path: Path) -> None:
    info = tmp_path / "glow-2.0.dist-info"
    info.mkdir()
    os.mkfifo(info / "entry_points.txt")
    install(good("fine"))
    assert get_plugin("glow").state is PluginState.OK
    assert get_plugin("(glow)").state is PluginState.BROKEN


# --- manifests ------------------------------------------------------------------------------------------------


def test_a_manifest_of_twenty_thousand_entries_is_listed_in_time(tmp_path: Path) -> None:
    # Building an entry hashes its config: one is built, and copied under other names.
    entry = example_entry(architecture="waves")
    entries = [{**entry, "name": f"waves-{index}"} for index in range(20_000)]
    good("waves", manifest=manifest_text(*entries)).install_metadata(tmp_path)
    done = run(tmp_path, "list", "--json", timeout=60)
    assert len(json.loads(done.stdout)) > 20_000


@pytest.mark.parametrize("what", ["pipe", "device", "absent"])
def test_a_plugins_manifest_that_is_no_file_is_a_note(tmp_path: Path, what: str) -> None:
    good("waves", manifest=manifest_text()).install_metadata(tmp_path)
    [place] = tmp_path.glob("zoo_waves/weights_manifest.json")
    place.unlink()
    if what == "pipe":
        os.mkfifo(place)
    elif what == "device":
        place.symlink_to("/dev/zero")
    done = run(tmp_path, "list", timeout=20)
    assert done.returncode == 0
    assert "glow-mnist" in done.stdout
    assert "zoo-waves 1.0" in done.stderr
