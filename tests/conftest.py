"""Fixtures that more than one test file needs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowzoo.registry import DISABLE_VARIABLE, reset_registry
from tests.plugin_factory import Distribution

# A shell starts what runs in the background with SIGINT ignored, and children inherit that: tests of Ctrl-C would
# wait for what never comes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Puts plugin distributions on the path for one test, as an installer leaves them."""
    monkeypatch.delenv(DISABLE_VARIABLE, raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*distributions: Distribution) -> None:
        for distribution in distributions:
            distribution.install_metadata(tmp_path)
        reset_registry()

    reset_registry()
    yield run
    for name in [name for name in sys.modules if name.startswith("zoo_")]:
        del sys.modules[name]
    monkeypatch.undo()
    reset_registry()
