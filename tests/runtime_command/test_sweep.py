"""Whoever is killed, wherever: what is left is deleted by force."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root


def test_whoever_is_killed_leaves_what_can_be_deleted(
    runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path
) -> None:
    """A sample; `python -m tests.runtime_command.sweep` takes every point. PYRT_SEED repeats one."""
    bundle.set("linux.resources", {"memory": {"limit": 64 << 20}, "pids": {"limit": 32}})
    seed = os.environ.get("PYRT_SEED") or str(secrets.randbelow(1 << 32))
    words = [*runtime.command, str(runtime.root), str(bundle.path), name, "--seed", seed, "--sample", "4"]
    command = [sys.executable, "-m", "tests.runtime_command.sweep", *words]
    # Into files: whoever lives on must not keep a pipe open for which this test would wait.
    output, error = tmp_path / "output", tmp_path / "error"
    with output.open("wb") as into, error.open("wb") as aside:
        code = subprocess.run(command, stdout=into, stderr=aside, timeout=120, check=False).returncode
    assert code == 0, f"PYRT_SEED={seed}: {error.read_text()[-4000:]}"
    points = json.loads(output.read_text())
    # The others make no process.
    assert all(points[f"{verb} inside"] > 3 for verb in ("create", "run", "exec"))
    assert all(points[f"{verb} keeper"] > 0 for verb in ("create", "start", "run", "exec", "delete"))
