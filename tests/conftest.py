"""What every test can ask for: folders of its own, the leak oracle, and images that other people's tools made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ward
from tests.leakcheck import Oracle, State


def pytest_configure(config: pytest.Config) -> None:
    """Enters the ward, with the terminal's descriptors in their places for what its init may have to say."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    ward.enter()
    if capture is not None:
        capture.resume_global_capture()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need root run under the leak oracle, whatever else they ask for; where CI has no root, it fails."""
    for item in items:
        if item.get_closest_marker("root") is None:
            continue
        if isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "leakcheck")
        if os.geteuid() != 0:
            if "CI" in os.environ:
                raise pytest.UsageError("CI has to run the tests as root: those marked `root` may not be skipped")
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """Empty folders, which everything that pyrt starts in this test uses."""
    folders = State(tmp_path / "root", tmp_path / "run", tmp_path / "tmp")
    for name, folder in zip(("PYRT_ROOT", "PYRT_RUN", "TMPDIR"), folders, strict=True):
        folder.mkdir(mode=0o700)
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folders.temporary))
    return folders


@pytest.fixture
def leakcheck(state: State) -> Iterator[Oracle]:
    """Nothing may be left when the test is over; see `tests.leakcheck`."""
    oracle = Oracle(state)
    yield oracle
    oracle.check()
