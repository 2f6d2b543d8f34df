"""SIGKILL before every call into the kernel or SQLite: an image is whole or absent, and nothing is left for good."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("action", "least"), [("add_image", 100), ("tag", 20), ("remove", 30), ("prune", 25)])
def test_killed_anywhere(tmp_path: Path, action: str, least: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.images.crash_sweep", action, str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # The sweep has really gone through the action, and not stopped at the first call.
    assert int(done.stdout) >= least
