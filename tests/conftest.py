"""What every test can ask for: folders of its own, the leak oracle, and images that other people's tools made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from pyrt.engine.engine import Engine, open_engine
from tests import ward
from tests.foreign import (  # noqa: F401  fixtures, by their names
    buildah_image,
    busybox,
    busybox_rootfs,
    debian,
    debian_tar,
    docker_archive,
    docker_saved,
    five_layers,
    platforms,
    private_registry,
    registry,
    registry_storage,
    windows_only,
    zstd_layers,
)
from tests.leakcheck import Oracle, State, processes

OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]


def pytest_configure(config: pytest.Config) -> None:
    """Enters the ward, while the terminal's descriptors are in their places for what its init may have to say."""
    ward.enter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root, tests that need it are skipped, but never in CI."""
    if os.geteuid() == 0:
        return
    if "CI" in os.environ:
        raise pytest.UsageError("CI has to run the tests as root: those marked `root` may not be skipped")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(autouse=True)
def _nothing_outlives_its_test(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """What needs root starts something: such a test runs under the whole oracle; every other one ends its processes."""
    if request.node.get_closest_marker("root"):
        request.getfixturevalue("leakcheck")
        yield
    else:
        nowhere = tmp_path_factory.getbasetemp()
        oracle = Oracle(State(nowhere, nowhere, nowhere), kinds=[processes], patience=5)
        yield
        oracle.check()


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


@pytest.fixture
def opened(state: State, leakcheck: Oracle) -> OpenEngine:
    """Opens an engine; several may be open at once."""

    @asynccontextmanager
    async def open_one() -> AsyncIterator[Engine]:
        async with open_engine(state.root, run_dir=state.run) as engine:
            yield engine

    return open_one
