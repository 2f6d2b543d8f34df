"""A native client, a server of its own for each test, and terminals."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.leakcheck import State

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def client_program() -> Path:
    """The native command, as the build has left it."""
    candidates = (
        os.environ.get("PYRT_COMMAND", ""),
        ROOT / "build/wheel/scripts/pyrt",
        ROOT / "target/static/x86_64-unknown-linux-gnu/init/pyrt",
        shutil.which("pyrt") or "",
    )
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            return Path(candidate)
    pytest.fail("the native client is not built: make build")


@pytest.fixture
def desk(client_program: Path) -> Iterator[Desk]:
    """A user's place with a server whose engine is a stand-in: for what flows between people and processes."""
    folder = Path(tempfile.mkdtemp(prefix="pyrt-desk-"))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "stand_in.py"}" "$@"\n')
    python.chmod(0o755)
    desk = Desk(client_program, folder, folder / "run", {"PYRT_PYTHON": str(python), "PYRT_ROOT": ""})
    try:
        yield desk
    finally:
        desk.close()
        shutil.rmtree(folder)


@pytest.fixture
def pyrt(client_program: Path, state: State, tmp_path: Path) -> Iterator[Desk]:
    """A user's place with a real server."""
    folder = tmp_path / "desk"
    folder.mkdir()
    desk = Desk(client_program, folder, state.run, {"PYRT_PYTHON": sys.executable})
    try:
        yield desk
        if desk.socket_of_any():
            for identifier in desk.ok("ps", "-aq").split():
                desk.ok("rm", "-f", identifier)
    finally:
        desk.close()
